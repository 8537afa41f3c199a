"use strict";

/* The layers of a network as a list, grouped by stage, with a search by name, type or number and a filter by kind. One
   option is reached by the Tab key, the others from there by the arrow keys. */

(() => {
  const { formatCount, formatShape, describeKernel } = convatlas;

  class LayerList {
    /* `getPart` returns an element of the list by its name; `onChoose` is called with a layer's name and whether the
       reader is stepping. */
    constructor(net, getPart, onChoose) {
      Object.assign(this, { net, getPart, onChoose });
      this.options = net.layers.map((layer) => this.renderOption(layer));
      const groups = new Map();
      net.layers.forEach(({ stage }, n) => {
        const title = makeElement("div", { class: "stage-name", "aria-hidden": "true" }, stage);
        if (!groups.has(stage)) groups.set(stage, makeElement("div", { role: "group", "aria-label": stage }, title));
        groups.get(stage).append(this.options[n]);
      });
      getPart("list").append(...groups.values());
      const kindCounts = new Map();
      for (const { kind } of net.layers) kindCounts.set(kind, (kindCounts.get(kind) || 0) + 1);
      getPart("kind").append(new Option(`all kinds (${net.layers.length})`, ""),
        ...[...kindCounts].map(([kind, count]) => new Option(`${kind} (${count})`, kind)));
      getPart("search").addEventListener("input", () => this.filter());
      getPart("kind").addEventListener("change", () => this.filter());
      getPart("search").addEventListener("keydown", (event) => this.onSearchKey(event));
      getPart("list").addEventListener("keydown", (event) => this.onListKey(event));
      getPart("list").addEventListener("click", (event) => {
        const option = event.target.closest(".option");
        if (option) onChoose(option.dataset.layer, false);
      });
    }

    renderOption(layer) {
      const { name, type, kind, role, ordinal, shape } = layer;
      const subtitle = [ordinal, describeKernel(layer), formatShape(shape)].filter(Boolean).join(" · ");
      const attributes = { class: `option ${kind}`, role: "option", tabindex: -1, "aria-selected": "false" };
      const option = makeElement("div", attributes, makeElement("span", { class: "name" }, name),
        makeElement("span", { class: "subtitle" }, subtitle));
      option.dataset.layer = name;
      option.searchText = `${name} ${type} ${kind} ${role || ""}`.toLowerCase();
      return option;
    }

    get visibleOptions() {
      return this.options.filter((option) => !option.hidden);
    }

    /* Show the layers of the chosen kind that match every word of the search: in name, type, kind or role, or as the
       number of a convolution. */
    filter() {
      const words = this.getPart("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = this.getPart("kind").value;
      this.net.layers.forEach((layer, n) => {
        const option = this.options[n];
        const isMatch = words.every((word) => option.searchText.includes(word) || word === String(layer.ordinal));
        option.hidden = !isMatch || Boolean(kind && kind !== layer.kind);
      });
      for (const group of this.getPart("list").children) {
        group.hidden = !group.querySelector(".option:not([hidden])");
      }
      const [nVisible, nLayers] = [this.visibleOptions.length, this.options.length];
      const text = nVisible === nLayers ? "" : `${nVisible} of ${formatCount(nLayers, "layer")}`;
      this.getPart("match-count").textContent = text;
      this.updateTabStop();
    }

    /* Mark a layer as the current one. */
    select(name) {
      for (const option of this.options) {
        const isSelected = option.dataset.layer === name;
        if (isSelected && option !== this.selected) this.scrollTo(option);
        if (isSelected) this.selected = option;
        option.setAttribute("aria-selected", String(isSelected));
      }
      this.updateTabStop();
    }

    /* Let the Tab key reach the selected layer, or the first visible one where that is hidden. */
    updateTabStop() {
      const visible = this.visibleOptions;
      const tabStop = visible.includes(this.selected) ? this.selected : visible[0];
      for (const option of this.options) option.tabIndex = option === tabStop ? 0 : -1;
    }

    /* Scroll the list, and only the list, to an option, below the name of its stage. */
    scrollTo(option) {
      const list = this.getPart("list");
      const [top, bottom] = [option.offsetTop - 40, option.offsetTop + option.offsetHeight + 8];
      if (top < list.scrollTop) list.scrollTop = top;
      else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    }

    /* The visible option `offset` positions after another, limited to the ends of the list. */
    getNeighbour(option, offset) {
      const visible = this.visibleOptions;
      return visible[Math.max(0, Math.min(visible.length - 1, visible.indexOf(option) + offset))];
    }

    step(offset) {
      const option = this.getNeighbour(this.selected, offset);
      if (option) this.onChoose(option.dataset.layer, true);
    }

    onSearchKey(event) {
      const [first] = this.visibleOptions;
      if (event.key === "Escape") {
        this.getPart("search").value = "";
        this.filter();
      }
      if (!["Enter", "ArrowDown"].includes(event.key)) return;
      event.preventDefault();
      if (first && event.key === "Enter") this.onChoose(first.dataset.layer, false);
      else if (first) this.options.find((option) => option.tabIndex === 0).focus();
    }

    onListKey(event) {
      const offsets = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity, Enter: 0, " ": 0 };
      const offset = offsets[event.key];
      const option = offset === undefined ? null : this.getNeighbour(document.activeElement, offset);
      if (!option) return;
      event.preventDefault();
      option.focus({ preventScroll: true });
      this.scrollTo(option);
      this.onChoose(option.dataset.layer, offset !== 0);
    }
  }

  convatlas.LayerList = LayerList;
})();
