"use strict";

/* The list of pages is one row on a phone: the page that one is on is brought into view there. */
for (const here of document.querySelectorAll(".masthead nav [aria-current]")) {
  const row = here.parentNode;
  row.scrollLeft = here.offsetLeft - (row.clientWidth - here.offsetWidth) / 2;
}
