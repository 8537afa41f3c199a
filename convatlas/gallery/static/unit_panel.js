"use strict";

/* One unit, looked at closely: what the explorer shows beside its sheet, and the comparison twice.
   Data come into the page as text nodes and attributes only, so that no name can be markup. */

(() => {
  /* Make an element: attributes (functions listen), then what is within. */
  function make(tag, attributes = {}, ...within) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") element.addEventListener(key, value);
      else if (value === true) element.setAttribute(key, "");
      else if (value !== false && value !== null) element.setAttribute(key, value);
    }
    element.append(...within.filter((part) => part !== null && part !== undefined));
    return element;
  }

  /* A number in three digits, with a true minus. */
  function number(value) {
    const isTiny = value !== 0 && Math.abs(value) < 1e-3;
    const digits = isTiny ? value.toExponential(1) : Number(value.toPrecision(3));
    return String(digits).replace(/-/g, "−").replace("e+", "e");
  }

  const share = (value) => `${number(100 * value)} %`;
  const times = (shape) => shape.join(" × ");
  const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

  /* What a unit is called where it has a name: the classes' scores do. */
  function called(net, layer, unit) {
    const name = (layer.named && net.classes[unit]) || "";
    return name === String(unit) ? "" : name; // as the digits are
  }

  /* The values of a unit on an image, in words; a layer without maps has one. */
  function values({ low, high, mean, zeros }, unit, layer) {
    if (Math.max(...layer.tile) === 1) return number(low[unit]);
    const range = `${number(low[unit])} to ${number(high[unit])}`;
    return `${range}, mean ${number(mean[unit])}, ${share(zeros[unit])} zeros`;
  }

  /* The bar of a scale: painted as the tiles are, a ramp under the same filter. `words` stand at ends that
     have no number of their own. */
  function bar(colours, [low, high], words = null) {
    const ramp = make("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const brush = ramp.getContext("2d");
    for (let grey = 0; grey < 256; grey++) {
      brush.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
      brush.fillRect(grey, 0, 1, 1);
    }
    convatlas.tint(ramp, colours);
    const zero = -low / (high - low);
    const ends = words || [number(low), number(high)];
    const middle = zero > 0.12 && zero < 0.88 ? make("span", { class: "zero" }, "0") : null;
    if (middle) middle.style.left = `${100 * zero}%`;
    const text = `Scale from ${ends[0]} to ${ends[1]}`;
    return make("div", { class: "scale", role: "img", "aria-label": text }, ramp,
      make("div", { class: "ends", "aria-hidden": "true" },
        make("span", {}, ends[0]), middle, make("span", {}, ends[1])));
  }

  /* Paint one tile on a canvas of its own, enlarged by a whole factor as far as `room` lets it, at most
     `most` pixels high. A value alone is a square. */
  function enlarge(canvas, seen, images, i, scale, colours, room, label) {
    const [height, width] = seen.tile;
    fit(canvas, seen.tile, room);
    if (label) canvas.setAttribute("role", "img");
    if (label) canvas.setAttribute("aria-label", label);
    convatlas.paint(canvas, seen, images, [i], [[0, 0, width, height]], () => scale);
    convatlas.tint(canvas, colours);
    return canvas;
  }

  function fit(canvas, [height, width], [room, most]) {
    const largest = Math.min(room / width, most / height);
    const factor = largest >= 1 ? Math.floor(largest) : largest;
    Object.assign(canvas, { width, height });
    canvas.style.width = `${Math.round(width * factor)}px`;
    canvas.style.height = `${Math.round(Math.max(height * factor, height === 1 ? 24 : 1))}px`;
    return canvas;
  }

  /* All that is needed to show a unit: the numbers of its layer, and where its tiles are. */
  async function look(state) {
    const net = await convatlas.network(state.network);
    const layer = net.layers.find((one) => one.name === state.layer);
    return { net, layer, told: await convatlas.numbersOf(net, layer) };
  }

  /* The scale of a unit's tiles in a view, and the table that colours them. `state.linked` may have a span
     to hold instead of the unit's own, by the kind of view. */
  function scaled({ net, layer, told }, state, kind, seen) {
    const colours = convatlas.table(seen, state.colours);
    const linked = state.linked && state.linked[kind];
    const span = linked || convatlas.span(net, layer, told, kind, state.scale, state.unit);
    return { colours, ends: convatlas.ends(span, colours) };
  }

  /* The panel of one unit. `state` has network, layer, unit, image, scale, colours and overlay; `choose` is
     called with what a reader changes. */
  class Panel {
    constructor(parent, choose) {
      this.choose = choose;
      this.map = make("canvas", { class: "map" });
      this.input = make("img", { class: "input", alt: "" });
      this.stage = make("div", { class: "stage framed" }, this.input, this.map);
      this.bar = make("div");
      this.slider = make("input", { type: "range", min: 0, max: 100, step: 5,
        input: () => this.fade(), change: () => choose({ overlay: Number(this.slider.value) }, true) });
      this.opacity = make("output", {});
      this.over = make("label", { class: "over" }, "Map over image", this.slider, this.opacity);
      this.words = make("p", { class: "words" });
      this.rest = make("div", { class: "rest" });
      parent.append(make("div", { class: "look" }, this.stage, this.bar, this.over), this.words, this.rest);
      swiped(this.stage, (step) => choose({ step })); // lightbox.js has it, for every page
    }

    fade() {
      const value = Number(this.slider.value);
      this.map.style.opacity = value / 100;
      this.opacity.textContent = `${value} %`;
      this.input.hidden = value === 100;
      if (value < 100 && this.input.src !== this.under) this.input.src = this.under; // not before it is seen
    }

    /* Show a unit, its map within `room` [width, height]; where it is asked for another meanwhile, that. */
    async show(state, room) {
      const turn = (this.turn = (this.turn || 0) + 1);
      const seen = await look(state);
      const { net, layer, told } = seen;
      const view = convatlas.view(net, layer, told, "maps", state.image);
      const images = await convatlas.pictures(view);
      const parts = await Promise.all([this.weights(seen, state), this.projections(seen, state)]);
      if (turn !== this.turn) return;
      const scale = scaled(seen, state, "maps", view);
      const name = `unit ${state.unit} of ${layer.name}`;
      const single = Math.max(...view.tile) === 1;
      const [width, height] = single ? [96, 96] : room;
      enlarge(this.map, view, images, state.unit, scale.ends, scale.colours, [width, height],
        `Map of ${name} on ${state.image}`);
      const wide = view.tile[0] > 1 && view.tile[1] > 1; // a map may lie on its image, a value or a strip not
      this.under = convatlas.place(`atlas/${net.name}/${net.inputs[state.image].file}`);
      this.over.hidden = !wide;
      this.slider.value = wide ? state.overlay : 100;
      this.fade();
      this.bar.replaceChildren(bar(scale.colours, scale.ends));
      this.words.replaceChildren(...sentences(seen, state));
      const { activeElement } = document;
      const focused = this.rest.contains(activeElement) && activeElement.getAttribute("aria-label");
      this.rest.replaceChildren(...parts.flat().filter(Boolean), ...convatlas.survey(seen, state.unit),
        this.everywhere(seen, state, scale, single), statistics(seen, state));
      if (focused !== false) {
        const again = focused && this.rest.querySelector(`[aria-label="${CSS.escape(focused)}"]`);
        (again || this.rest.querySelector("button")).focus({ preventScroll: true });
      }
    }

    async weights(seen, state) {
      const { net, layer, told } = seen;
      if (!layer.filters) return null;
      const view = convatlas.view(net, layer, told, "filters", state.image);
      const { colours, ends } = scaled(seen, state, "filters", view);
      const images = await convatlas.pictures(view);
      const most = told.filters.most[state.unit];
      const canvas = enlarge(make("canvas"), view, images, state.unit, ends, colours, [160, 160],
        `Filter of unit ${state.unit} of ${layer.name}, from ${number(-most)} to ${number(most)}`);
      const words = weightsWords(layer, told, state.unit, view);
      return aside("Filter", canvas, bar(colours || "grey", ends), words);
    }

    async projections(seen, state) {
      const { net, layer, told } = seen;
      if (!layer.deconv) return null;
      const listed = layer.deconv.units[state.image];
      const at = listed.indexOf(state.unit);
      if (at < 0) {
        const go = (unit) => ({ type: "button", class: "plain", click: () => this.choose({ unit }) });
        const others = listed.slice(0, 16).map((unit) => make("button", go(unit), String(unit)));
        const words = `Not among the units projected on ${state.image}:`;
        return [make("p", { class: "fine others" }, words, ...others)];
      }
      return Promise.all(convatlas.kinds(layer).filter((kind) => kind in TITLES).map(async (kind) => {
        const view = convatlas.view(net, layer, told, kind, state.image);
        const { colours, ends } = scaled(seen, state, kind, view);
        const images = await convatlas.pictures(view);
        const canvas = enlarge(make("canvas"), view, images, at, ends, colours, [160, 160],
          `${TITLES[kind]}, of unit ${state.unit} of ${layer.name} on ${state.image}`);
        const nothing = view.high(at) === 0 ? "Zero everywhere: the unit is nowhere positive here." : null;
        return aside(TITLES[kind], canvas, bar(colours || "grey", ends), nothing);
      }));
    }

    /* The unit's map on every image: loaded when it comes into sight, for each is in a picture of its own. */
    everywhere({ net, layer, told }, state, scale, single) {
      const list = make("div", { class: "images" });
      for (const { name } of net.images) {
        const room = single ? [40, 40] : [84, 84];
        const canvas = fit(make("canvas"), layer.tile, room);
        const isHere = String(name === state.image);
        const button = make("button", { type: "button", "aria-pressed": isHere, "aria-label": `On ${name}`,
          click: () => this.choose({ image: name }) }, framed(canvas), make("span", {}, name));
        list.append(button);
        whenSeen(button, async () => {
          const view = convatlas.view(net, layer, told, "maps", name);
          const images = await convatlas.pictures(view);
          enlarge(canvas, view, images, state.unit, scale.ends, scale.colours, room, "");
        });
      }
      return make("div", { class: "everywhere", role: "group", "aria-label": "On every image" },
        make("p", { class: "title" }, "On every image"), list);
    }
  }

  const TITLES = { projections: "Projection: whole map", peaks: "Projection: its peak" };

  // A canvas's own border would be coloured with it.
  const framed = (canvas) => make("span", { class: "framed" }, canvas);

  const aside = (title, canvas, scale, words) =>
    make("figure", { class: "aside" }, make("figcaption", {}, title), framed(canvas), scale,
      words ? make("p", { class: "fine" }, words) : null);

  function weightsWords(layer, told, unit, view) {
    if (view.colour) return "Its three channels, as colours about grey.";
    const channels = told.filters.channels && told.filters.channels[unit];
    if (channels) return `For the input channels of greatest norm, in order: ${channels.join(", ")}.`;
    const isWindow = layer.kernel && Math.max(...layer.kernel) > 1;
    return isWindow ? null : "All its weights, in the order of the inputs.";
  }

  /* What the unit is, in words: its name, its classical match, on which images it is alive. */
  function sentences({ net, layer, told }, { unit }) {
    const said = [];
    const name = called(net, layer, unit);
    if (name) said.push(make("strong", {}, name), ". ");
    const like = told.like && told.like[unit];
    if (like) said.push(`Resembles: ${like.words} (r = ${number(like.r)}). `);
    else if (told.like) said.push("Resembles no classical feature clearly. ");
    const maps = Object.values(told.maps);
    const alive = maps.filter(({ high }) => high[unit] > 0).length;
    const isZero = maps.every(({ low, high }) => low[unit] === 0 && high[unit] === 0);
    const all = ["", "the image", "both images"][maps.length] || `all ${maps.length} images`;
    if (layer.negative) said.push("Never positive, as no unit of such a layer is.");
    else if (isZero) said.push(`Dead: zero everywhere on ${all}.`);
    else if (!alive) said.push(`Nowhere positive on ${all}.`); // dead only where a ReLU follows
    else if (alive < maps.length) said.push(`Alive, that is positive, on ${alive} of ${maps.length} images.`);
    else said.push(`Alive on ${all}.`);
    return said;
  }

  function statistics({ layer, told }, state) {
    const isSingle = Math.max(...layer.tile) === 1;
    const cell = (text) => make("td", { class: "number" }, text);
    const rows = Object.entries(told.maps).map(([image, { low, high, mean, zeros }]) => {
      const lists = isSingle ? [low] : [low, mean, high]; // of a single value the mean is rounded more
      const cells = lists.map((list) => cell(number(list[state.unit])));
      if (!isSingle) cells.push(cell(share(zeros[state.unit])));
      const here = image === state.image ? { class: "here" } : {};
      return make("tr", here, make("th", { scope: "row" }, image), ...cells);
    });
    const columns = isSingle ? ["value"] : ["lowest", "mean", "highest", "zeros"];
    const head = ["image", ...columns].map((word, n) =>
      make("th", { scope: "col", class: n ? "number" : "" }, word));
    const words = `Statistics of unit ${state.unit} on every image`;
    return make("div", { class: "frame", role: "group", tabindex: 0, "aria-label": words },
      make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
  }

  // Only as far as it is looked at: a layer's maps on fifty images are fifty pictures
  const watched = new WeakMap();
  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting || !target.isConnected) watcher.unobserve(target);
      if (isIntersecting) watched.get(target)().catch((error) => target.append(error.message));
    }
  });
  function whenSeen(element, act) {
    watched.set(element, act);
    watcher.observe(element);
  }

  Object.assign(convatlas, { make, number, share, times, count, called, values, bar, whenSeen, look, Panel });
})();
