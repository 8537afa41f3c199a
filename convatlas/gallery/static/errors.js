"use strict";

/* Sort the images of every list by the probability of the predictions, in the list's own direction, or by the loss,
   the highest first; images whose values are equal stay in the order of the page. */
const sortSelect = document.querySelector("#sort-images");
if (sortSelect) {
  const lists = [...document.querySelectorAll(".predictions")].map((list) => [list, [...list.children]]);
  sortSelect.addEventListener("change", () => {
    const key = sortSelect.value;
    for (const [list, items] of lists) {
      const sign = key === "probability" && list.dataset.order === "ascending" ? 1 : -1;
      list.append(...[...items].sort((a, b) => sign * (Number(a.dataset[key]) - Number(b.dataset[key])) || 0));
    }
  });
  sortSelect.closest("[hidden]").hidden = false;
}
