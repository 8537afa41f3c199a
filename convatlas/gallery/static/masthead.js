"use strict";

/* The menus of the navigation: one is open at a time; Escape, a click elsewhere and a chosen link close it. */
(() => {
  const menus = [...document.querySelectorAll(".masthead .menu")];
  const closeMenus = (except) => menus.forEach((menu) => { if (menu !== except) menu.open = false; });
  for (const menu of menus) {
    menu.addEventListener("toggle", () => { if (menu.open) closeMenus(menu); });
    menu.addEventListener("click", (event) => { if (event.target.closest("a")) menu.open = false; });
  }
  document.addEventListener("click", (event) => closeMenus(event.target.closest(".masthead .menu")));
  document.addEventListener("keydown", (event) => {
    const open = menus.find((menu) => menu.open);
    if (event.key !== "Escape" || !open) return;
    open.open = false;
    open.querySelector("summary").focus();
  });
  /* On a phone the tabs of a network are one scrolling row; scroll it to the current one. */
  const current = document.querySelector(".tabs [aria-current]");
  if (current) {
    const row = current.closest("nav");
    row.scrollLeft = current.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
  }
})();
