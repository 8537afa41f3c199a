"use strict";

/* Terms of the field: the definition of a term on hover, on focus and at the first tap; Esc closes it. Without this
   script a term is a link to the glossary, and its definition the link's title. */

(() => {
  if (!HTMLElement.prototype.showPopover) return;
  const MARGIN = 8; // pixels between the definition, its term and the edges of the window
  const popover = document.createElement("div");
  popover.id = "term-definition";
  popover.className = "term-definition";
  popover.popover = "manual";
  popover.setAttribute("role", "tooltip");
  document.body.append(popover);
  let current = null; // the term whose definition is shown
  let wasShown = false; // whether it was at the last press of a pointer
  let pressedBy = ""; // the kind of that pointer
  let timer = 0;

  const findTerm = (event) => (event.target.closest ? event.target.closest("a.term") : null);

  /* Show the definition below the term, or above it where there is more room. */
  function show(term) {
    clearTimeout(timer);
    if (current === term) return;
    hide();
    if (term.title) {
      term.dataset.definition = term.title;
      term.removeAttribute("title"); // which the browser would show, too
    }
    current = term;
    popover.textContent = term.dataset.definition;
    term.setAttribute("aria-describedby", popover.id);
    popover.showPopover();
    const box = term.getClientRects()[0];
    const { offsetWidth: width, offsetHeight: height } = popover;
    const { clientWidth, clientHeight } = document.documentElement;
    const left = Math.max(MARGIN, Math.min(box.left, clientWidth - width - MARGIN));
    const isBelow = box.bottom + MARGIN + height <= clientHeight || box.top < clientHeight - box.bottom;
    popover.style.left = `${left}px`;
    popover.style.top = `${isBelow ? box.bottom + MARGIN / 2 : box.top - height - MARGIN / 2}px`;
  }

  function hide() {
    clearTimeout(timer);
    if (!current) return;
    current.removeAttribute("aria-describedby");
    current = null;
    popover.hidePopover();
  }

  /* Hide soon, so that a pointer can move from the term to its definition. */
  function hideSoon() {
    clearTimeout(timer);
    timer = setTimeout(hide, 200);
  }

  addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch") return;
    const term = findTerm(event);
    if (term) show(term);
    else if (event.target === popover) clearTimeout(timer);
    else if (current && current !== document.activeElement) hideSoon();
  });
  addEventListener("focusin", (event) => {
    const term = findTerm(event);
    if (term && term.matches(":focus-visible")) show(term);
  });
  addEventListener("focusout", hideSoon);
  addEventListener("pointerdown", (event) => {
    const term = findTerm(event);
    [wasShown, pressedBy] = [term !== null && term === current, event.pointerType];
    if (!term && event.target !== popover) hide();
  });
  addEventListener("click", (event) => {
    const term = findTerm(event);
    if (!term || wasShown || pressedBy !== "touch") return; // a second tap follows the link
    event.preventDefault();
    show(term);
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !current) return;
    event.stopPropagation();
    event.preventDefault(); // which would close a dialog around the term
    hide();
  }, true);
  addEventListener("scroll", hide, true);
  addEventListener("hashchange", hide);
})();
