"use strict";

/* Printing: only what belongs to a figure or a diagram stays collapsed, every image is loaded and every canvas drawn.
   The button waits for them; the browser's own command cannot, and prints what is there. */
(() => {
  const COLLAPSED = ".how-to-read, .settings, .level, .level details";

  function unfold() {
    for (const details of document.querySelectorAll("main details")) {
      if (!details.matches(COLLAPSED)) details.open = true;
    }
    for (const image of document.querySelectorAll("img[loading]")) image.loading = "eager";
    return window.convatlasDrawAll ? window.convatlasDrawAll() : Promise.resolve();
  }

  async function print() {
    button.disabled = true;
    await unfold();
    await Promise.all([...document.images].map((image) => image.decode().catch(() => null)));
    button.disabled = false;
    window.print();
  }

  addEventListener("beforeprint", unfold);
  const button = makeElement("button", { type: "button", class: "print-button", click: print }, "Print");
  document.querySelector(".tabs, footer p").append(" ", button);
})();
