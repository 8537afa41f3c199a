"use strict";

/* The lightbox: figures one at a time over the whole window. A click on a figure opens it; arrow keys or swipes go to
   the next and previous one. Without this script a figure links to its image file. */

(() => {
  const figures = [...document.querySelectorAll("figure.figure")].filter((figure) => figure.querySelector("a img"));
  if (!figures.length) return;
  let current = 0;

  const makeButton = (text, onClick, label = text) =>
    makeElement("button", { type: "button", "aria-label": label, click: onClick }, text);
  const image = makeElement("img");
  const caption = makeElement("figcaption", { tabindex: -1 });
  const frame = makeElement("div", { class: "frame", tabindex: 0, role: "region", "aria-label": "The figure" }, image);
  const position = makeElement("p", { class: "fine", role: "status" });
  const bar = makeElement("div", { class: "lightbox-bar" },
    makeButton("‹", () => show(current - 1), "Previous figure"),
    makeButton("›", () => show(current + 1), "Next figure"), position,
    makeButton("1:1", (event) => toggleFullSize(event.target), "Full size"),
    makeButton("Close", () => dialog.close()));
  const dialog = makeElement("dialog", { class: "lightbox", "aria-label": "Figures, one at a time" },
    bar, makeElement("figure", {}, frame, caption));
  document.body.append(dialog);

  function show(index) {
    current = (index + figures.length) % figures.length;
    const pageImage = figures[current].querySelector("a img");
    const [width, height] = ["width", "height"].map((name) => Number(pageImage.getAttribute(name)));
    image.src = pageImage.parentNode.href; // the linked file; the page may show a smaller image
    image.alt = pageImage.alt;
    image.style.aspectRatio = `${width} / ${height}`;
    image.style.setProperty("--aspect", width / height);
    image.style.setProperty("--full", `${width}px`);
    const pageCaption = figures[current].querySelector("figcaption");
    caption.replaceChildren(...[...pageCaption.childNodes].filter((node) => node.className !== "settings").map((node) => node.cloneNode(true)));
    for (const element of caption.querySelectorAll("[id]")) element.removeAttribute("id"); // which is the page's
    position.textContent = `Figure ${current + 1} of ${figures.length}`;
    frame.scrollTo(0, 0);
  }

  /* Switch between the printed size, which scrolls in the frame, and the size that fits the window. */
  function toggleFullSize(button) {
    button.setAttribute("aria-pressed", frame.classList.toggle("full-size"));
  }

  function open(index) {
    show(index);
    dialog.showModal();
  }

  figures.forEach((figure, index) => figure.querySelector("a").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // opens a new tab
    event.preventDefault();
    open(index);
  }));
  dialog.addEventListener("keydown", (event) => {
    const targets = { ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: figures.length - 1 };
    if (targets[event.key] === undefined) return;
    event.preventDefault();
    show(targets[event.key]);
  });
  dialog.addEventListener("close", () => {
    for (let node = figures[current]; node; node = node.parentNode) if (node.tagName === "DETAILS") node.open = true;
    const link = figures[current].querySelector("a");
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  });
  onSwipe(frame, (step) => frame.scrollWidth <= frame.clientWidth && show(current + step));

  const contents = document.querySelector(".contents");
  if (contents) contents.append(makeButton("Figures, one at a time", () => open(0)));
})();
