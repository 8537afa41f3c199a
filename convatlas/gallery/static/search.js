"use strict";

/* The search field of the navigation, a combobox: pages by their titles, layers by their names. The index is a
   file of its own, loaded once the field is used. Ctrl+K or / focus the field. */
(() => {
  const MAX_RESULTS = 12;
  const box = document.querySelector('[data-part="site-search"]');
  if (!box) return;
  const root = box.dataset.root;
  let entries = null; // { title, group, href, text }, from the index
  let active = -1; // number of the highlighted result

  const list = makeElement("ul", { role: "listbox", id: "search-results", "aria-label": "Results", hidden: true });
  const field = makeElement("input", {
    type: "search", placeholder: "Find a page or layer", autocomplete: "off", spellcheck: "false",
    role: "combobox", "aria-label": "Find a page or layer", "aria-autocomplete": "list",
    "aria-controls": "search-results", "aria-expanded": "false",
    focus: loadIndex, input: () => showResults(), keydown: handleKey,
  });
  const count = makeElement("span", { class: "visually-hidden", role: "status" });
  box.append(field, list, count);
  box.hidden = false;

  document.addEventListener("click", (event) => { if (!box.contains(event.target)) hideResults(); });
  box.addEventListener("focusout", (event) => { if (!box.contains(event.relatedTarget)) hideResults(); });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest("input, select, textarea, [contenteditable]");
    const isShortcut = event.key === "/" ? !isTyping : event.key === "k" && (event.ctrlKey || event.metaKey);
    if (!isShortcut) return;
    event.preventDefault();
    field.focus();
    field.select();
  });

  /* Load the index as a script: pages opened as files cannot fetch. */
  function loadIndex() {
    if (document.getElementById("search-index")) return;
    const script = makeElement("script", { id: "search-index", src: `${root}static/search_index.js`, load: () => {
      const { pages, layers } = window.convatlasSearchIndex;
      entries = pages.map(([title, path, group]) => ({ title, group, href: root + path }));
      for (const [network, names] of Object.entries(layers)) {
        for (const name of names) {
          const href = `${root}networks/${network}.html#layer=${encodeURIComponent(name)}`;
          entries.push({ title: name, group: `layer of ${network}`, href });
        }
      }
      entries.forEach((entry) => { entry.text = `${entry.title} ${entry.group}`.toLowerCase(); });
      showResults();
    } });
    document.head.append(script);
  }

  /* List the entries that contain every word; those whose title starts with the text come first. */
  function showResults() {
    const text = field.value.trim().toLowerCase();
    if (!text || !entries) return hideResults();
    const words = text.split(/\s+/);
    const matches = entries.filter((entry) => words.every((word) => entry.text.includes(word)));
    const rank = ({ title }) => (title.toLowerCase().startsWith(text) ? 0 : 1);
    matches.sort((a, b) => rank(a) - rank(b)); // a stable sort: pages before layers
    const shown = matches.slice(0, MAX_RESULTS);
    list.replaceChildren(...shown.map(({ title, group, href }, n) =>
      makeElement("li", { role: "option", id: `search-result-${n}`, "aria-selected": "false" },
        makeElement("a", { href, tabindex: -1, click: hideResults }, title, " ", makeElement("span", { class: "fine" }, group)))));
    if (!shown.length) list.append(makeElement("li", { role: "option", "aria-disabled": "true" }, "Nothing found"));
    else if (matches.length > shown.length) {
      list.append(makeElement("li", { role: "option", "aria-disabled": "true", class: "fine" },
        `${matches.length - shown.length} more: type more letters`));
    }
    count.textContent = `${matches.length} results`;
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    highlight(shown.length ? 0 : -1);
  }

  function hideResults() {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    highlight(-1);
  }

  function highlight(n) {
    active = n;
    list.querySelectorAll("[aria-selected]").forEach((item, m) => item.setAttribute("aria-selected", String(m === n)));
    const item = document.getElementById(`search-result-${n}`);
    if (item) field.setAttribute("aria-activedescendant", item.id);
    else field.removeAttribute("aria-activedescendant");
    item?.scrollIntoView({ block: "nearest" });
  }

  function handleKey(event) {
    const links = list.hidden ? [] : [...list.querySelectorAll("a")];
    if (event.key === "Escape") hideResults();
    else if (links.length && event.key === "ArrowDown") highlight((active + 1) % links.length);
    else if (links.length && event.key === "ArrowUp") highlight((active - 1 + links.length) % links.length);
    else if (links.length && event.key === "Enter" && active >= 0) links[active].click();
    else return;
    event.preventDefault();
  }
})();
