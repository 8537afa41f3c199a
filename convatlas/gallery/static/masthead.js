"use strict";

/* On a phone the navigation is one scrolling row; scroll it to the link of the current page. */
for (const link of document.querySelectorAll(".masthead nav [aria-current]")) {
  const row = link.closest("nav");
  row.scrollLeft = link.offsetLeft - (row.clientWidth - link.offsetWidth) / 2;
}
