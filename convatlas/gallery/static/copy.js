"use strict";

/* Copying of captions with citation and settings. */

/* Copy a text, and say so in `status`; where the browser refuses, show the text selected, to be copied by hand. */
async function copyText(text, status) {
  try {
    await navigator.clipboard.writeText(text);
    status.replaceChildren("Copied");
  } catch {
    const area = makeElement("textarea", { readonly: true, rows: 6, "aria-label": "Text to copy" });
    area.value = text;
    status.replaceChildren("Press Ctrl+C to copy: ", area);
    area.select();
  }
}

/* The citation of the run, which is at the foot of each page. */
function getCitation() {
  const citation = document.querySelector(".run-citation");
  return citation ? citation.textContent.trim() : "";
}

/* The address of a part of the page; `hash` begins with #. */
function getAddress(hash) {
  const canonical = document.querySelector("link[rel=canonical]");
  return `${canonical ? canonical.href : location.href.split("#")[0]}${hash}`;
}

const getText = (element) => element.textContent.trim().replace(/[ \t]+\n/g, "\n");

// Each figure's settings end with a button that copies them with the caption.
for (const settings of document.querySelectorAll("details.settings")) {
  const figure = settings.closest("figure");
  const caption = figure.dataset.caption || getText(figure.querySelector("figcaption > span"));
  const status = makeElement("span", { role: "status", class: "copy-status" });
  const button = makeElement("button", { type: "button", class: "link-button", click: () => {
    const texts = [...settings.querySelectorAll("pre")].map(getText);
    copyText([caption, ...texts, getAddress(`#${figure.id}`), getCitation()].join("\n\n"), status);
  } }, "Copy caption, citation and settings");
  settings.append(makeElement("p", {}, button, " ", status));
}
