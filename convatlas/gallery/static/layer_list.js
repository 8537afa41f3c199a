"use strict";

/* The layers of a network as a list, by stages: searched by name, type or number, filtered by kind. One of
   its options is reached by the Tab key, the others from there by the arrows. */

(() => {
  const { make, count, times } = convatlas;

  class Layers {
    /* `part` finds the list's elements by name; `choose` is called with a layer's name, and whether the
       reader is stepping. */
    constructor(net, part, choose) {
      Object.assign(this, { net, part, choose });
      this.options = net.layers.map((layer) => this.option(layer));
      const groups = new Map();
      net.layers.forEach(({ stage }, n) => {
        const title = make("div", { class: "stage-name", "aria-hidden": "true" }, stage);
        if (!groups.has(stage)) groups.set(stage, make("div", { role: "group", "aria-label": stage }, title));
        groups.get(stage).append(this.options[n]);
      });
      part("list").append(...groups.values());
      const kinds = new Map();
      for (const { kind } of net.layers) kinds.set(kind, (kinds.get(kind) || 0) + 1);
      part("kind").append(new Option(`all kinds (${net.layers.length})`, ""),
        ...[...kinds].map(([kind, n]) => new Option(`${kind} (${n})`, kind)));
      part("search").addEventListener("input", () => this.find());
      part("kind").addEventListener("change", () => this.find());
      part("search").addEventListener("keydown", (event) => this.searched(event));
      part("list").addEventListener("keydown", (event) => this.pressed(event));
      part("list").addEventListener("click", (event) => {
        const option = event.target.closest(".option");
        if (option) choose(option.dataset.layer, false);
      });
    }

    option({ name, type, kind, role, ordinal, kernel, shape }) {
      const numbers = [ordinal, kernel ? `${type} ${times(kernel)}` : type, times(shape)].filter(Boolean);
      const given = { class: `option ${kind}`, role: "option", tabindex: -1, "aria-selected": "false" };
      const option = make("div", given,
        make("span", { class: "name" }, name), make("span", { class: "what" }, numbers.join(" · ")));
      option.dataset.layer = name;
      option.words = `${name} ${type} ${kind} ${role || ""}`.toLowerCase();
      return option;
    }

    get shown() {
      return this.options.filter((option) => !option.hidden);
    }

    /* Show the layers that have every word of the search in name, type or role, or the number of a
       convolution. */
    find() {
      const words = this.part("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const kind = this.part("kind").value;
      this.net.layers.forEach((layer, n) => {
        const option = this.options[n];
        const fits = words.every((word) => option.words.includes(word) || word === String(layer.ordinal));
        option.hidden = !fits || Boolean(kind && kind !== layer.kind);
      });
      for (const group of this.part("list").children) {
        group.hidden = !group.querySelector(".option:not([hidden])");
      }
      const [there, all] = [this.shown.length, this.options.length];
      this.part("found").textContent = there === all ? "" : `${there} of ${count(all, "layer")}`;
      this.stop();
    }

    /* Mark the layer that is looked at. */
    mark(name) {
      for (const option of this.options) {
        const isChosen = option.dataset.layer === name;
        if (isChosen && option !== this.chosen) this.reveal(option);
        if (isChosen) this.chosen = option;
        option.setAttribute("aria-selected", String(isChosen));
      }
      this.stop();
    }

    /* Let the Tab key stop at the chosen layer, or where it is not shown at the first. */
    stop() {
      const shown = this.shown;
      const stop = shown.includes(this.chosen) ? this.chosen : shown[0];
      for (const option of this.options) option.tabIndex = option === stop ? 0 : -1;
    }

    /* Scroll the list, and the list alone, to an option, below the name of its stage. */
    reveal(option) {
      const list = this.part("list");
      const [top, bottom] = [option.offsetTop - 40, option.offsetTop + option.offsetHeight + 8];
      if (top < list.scrollTop) list.scrollTop = top;
      else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
    }

    /* The layer so many places on among those that are shown, or as far as there are any. */
    beside(option, by) {
      const shown = this.shown;
      return shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(option) + by))];
    }

    step(by) {
      const option = this.beside(this.chosen, by);
      if (option) this.choose(option.dataset.layer, true);
    }

    searched(event) {
      const [first] = this.shown;
      if (event.key === "Escape") {
        this.part("search").value = "";
        this.find();
      }
      if (!["Enter", "ArrowDown"].includes(event.key)) return;
      event.preventDefault();
      if (first && event.key === "Enter") this.choose(first.dataset.layer, false);
      else if (first) this.options.find((option) => option.tabIndex === 0).focus();
    }

    pressed(event) {
      const by = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity, Enter: 0, " ": 0 }[event.key];
      const option = by === undefined ? null : this.beside(document.activeElement, by);
      if (!option) return;
      event.preventDefault();
      option.focus({ preventScroll: true });
      this.reveal(option);
      this.choose(option.dataset.layer, by !== 0);
    }
  }

  convatlas.Layers = Layers;
})();
