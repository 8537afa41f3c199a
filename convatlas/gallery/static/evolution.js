"use strict";

/* The slider of the page of a network's evolution: it shows one epoch of all layers, larger, or all epochs. Without this
   script, and in print, all epochs are shown. */
(() => {
  const page = document.querySelector(".evolution-page");
  const control = page.querySelector(".evolution-control");
  if (!control) return;
  const slider = control.querySelector('input[type="range"]');
  const showsAll = control.querySelector('input[type="checkbox"]');
  const output = control.querySelector("output");
  const titles = slider.dataset.titles.split("|");
  const cells = [...page.querySelectorAll("[data-column]")];

  function update() {
    const title = titles[slider.value];
    page.classList.toggle("single-epoch", !showsAll.checked);
    for (const cell of cells) cell.classList.toggle("other", !showsAll.checked && cell.dataset.column !== slider.value);
    output.textContent = showsAll.checked ? "all" : title;
    slider.setAttribute("aria-valuetext", title);
  }

  slider.addEventListener("input", () => {
    showsAll.checked = false;
    update();
  });
  showsAll.addEventListener("change", update);
  if (matchMedia("(max-width: 40rem)").matches) showsAll.checked = false;
  control.hidden = false;
  update();
})();
