"use strict";

/* The choice of two networks on the first page: the link opens the comparison of their units. */
(() => {
  const choice = document.querySelector('[data-part="compare-networks"]');
  if (!choice) return;
  const [first, second] = ["first", "second"].map((part) => choice.querySelector(`[data-part="${part}"]`));
  const link = choice.querySelector("a");
  const update = () => {
    const [a, b] = [first, second].map(({ value }) => encodeURIComponent(`network=${encodeURIComponent(value)}`));
    link.href = `compare.html#a=${a}&b=${b}`;
  };
  [first, second].forEach((select) => select.addEventListener("change", update));
  update();
  choice.hidden = false;
})();
