"use strict";

/* Plates one at a time, over the whole window: a click on a plate opens it, arrows or a swipe go on. Without
   this script a plate leads to its picture. */

/* Call with 1 or -1 when a finger goes left or right over an element; up and down still scroll. */
function swiped(element, act) {
  let start = null;
  element.addEventListener("touchstart", (event) => {
    const [touch, more] = event.touches;
    start = more ? null : [touch.clientX, touch.clientY];
  }, { passive: true });
  element.addEventListener("touchend", (event) => {
    if (!start) return;
    const { clientX, clientY } = event.changedTouches[0];
    const [x, y] = [clientX - start[0], clientY - start[1]];
    if (Math.abs(x) > 40 && Math.abs(x) > 1.5 * Math.abs(y)) act(x < 0 ? 1 : -1);
  });
}

(() => {
  const figures = [...document.querySelectorAll("figure.plate")];
  const plates = figures.filter((figure) => figure.querySelector("a img"));
  if (!plates.length) return;
  let at = 0;

  const make = (tag, attributes, ...within) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...within);
    return element;
  };
  const image = make("img", {});
  const caption = make("figcaption", { tabIndex: -1 });
  const region = { className: "frame", tabIndex: 0, role: "region", ariaLabel: "The plate" };
  const frame = make("div", region, image);
  const where = make("p", { className: "fine" });
  where.setAttribute("role", "status");
  const button = (text, act, label = text) =>
    make("button", { type: "button", ariaLabel: label, onclick: act }, text);
  const bar = make("div", { className: "lightbox-bar" }, button("‹", () => show(at - 1), "Plate before"),
    button("›", () => show(at + 1), "Next plate"), where, button("1:1", (event) => large(event.target), "Full size"),
    button("Close", () => dialog.close()));
  const dialog = make("dialog", { className: "lightbox", ariaLabel: "Plates, one at a time" },
    bar, make("figure", {}, frame, caption));
  document.body.append(dialog);

  function show(n) {
    at = (n + plates.length) % plates.length;
    const shown = plates[at].querySelector("a img");
    const given = plates[at].querySelector("figcaption");
    const [width, height] = [shown, shown].map((one, k) => Number(one.getAttribute(k ? "height" : "width")));
    image.src = shown.parentNode.href; // its own address, for the page's may be a smaller picture
    image.alt = shown.alt;
    image.style.aspectRatio = `${width} / ${height}`;
    image.style.setProperty("--aspect", width / height);
    image.style.setProperty("--full", `${width}px`);
    caption.replaceChildren(...[...given.childNodes].map((node) => node.cloneNode(true)));
    where.textContent = `${at + 1} of ${plates.length} plates on this page`;
    frame.scrollTo(0, 0);
  }

  /* As large as on paper, to be pushed about in its frame: on a phone a whole plate's words are too small. */
  function large(toggle) {
    const now = frame.classList.toggle("large");
    toggle.setAttribute("aria-pressed", now);
  }

  function open(n) {
    show(n);
    dialog.showModal();
  }

  plates.forEach((plate, n) => plate.querySelector("a").addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return; // to a tab of its own
    event.preventDefault();
    open(n);
  }));
  dialog.addEventListener("keydown", (event) => {
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: plates.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
  dialog.addEventListener("close", () => {
    for (let one = plates[at]; one; one = one.parentNode) if (one.tagName === "DETAILS") one.open = true;
    const link = plates[at].querySelector("a");
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  });
  swiped(frame, (step) => frame.scrollWidth <= frame.clientWidth && show(at + step));

  const contents = document.querySelector(".contents");
  if (contents) contents.append(button("Plates, one at a time", () => open(0)));

  // On paper nothing is folded away, and every plate is there.
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
    for (const plate of plates) plate.querySelector("img").loading = "eager";
  });
})();
