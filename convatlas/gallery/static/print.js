"use strict";

/* Printing: only the explanations of figures are collapsed, every image is loaded and every canvas drawn. The button
   waits for them; the browser's own command cannot, and prints what is there. */
(() => {
  function unfold() {
    for (const details of document.querySelectorAll("main details:not(.how-to-read)")) details.open = true;
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
