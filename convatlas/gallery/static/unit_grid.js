"use strict";

/* All units of a layer as one sheet of numbered tiles, laid out anew for the room there is: enlarged by a
   whole factor, without smoothing, with a gap between tiles that is no part of the picture. */

(() => {
  const { make } = convatlas;
  const GAP = 2; // pixels between tiles
  const STRIP = 16; // above a tile, for its number
  const GUTTER = 40; // beside a row of tiles too small or too many for that, for the number of its first
  const NUMBERED = 256; // tiles that have a number each, at most
  const MOST = 1024; // tiles on one sheet; a layer of more is shown in parts
  const FACTORS = [1 / 8, 1 / 4, 1 / 3, 1 / 2, ...[...Array(56).keys()].map((n) => n + 1)];

  /* Where `count` tiles [height, width] go in a room: the largest that need no more height than `most`, else
     the smallest that are `least` pixels wide, which is as small as can be hit. */
  function arrange(room, most, count, tile, least) {
    const plans = FACTORS.map((factor) => plan(room, count, tile, factor, least)).filter(Boolean);
    const wide = plans.filter((one) => one.tile[0] >= least);
    const largest = tile[1] === 1 ? 56 : Math.max(208, room / 4); // a value alone needs little
    const fit = wide.filter((one) => one.height <= most && Math.max(...one.tile) <= largest);
    return fit.at(-1) || wide[0] || plans.at(-1);
  }

  function plan(room, count, [rows, columns], factor, least) {
    const width = Math.round(columns * factor);
    const isStrip = rows === 1 && columns > 1; // of values, which is made high
    const height = isStrip ? least : Math.round(rows * factor);
    const isNumbered = count <= NUMBERED && width >= 26;
    const [left, strip] = isNumbered ? [0, STRIP] : [GUTTER, 0];
    let across = Math.min(count, Math.floor((room - left + GAP) / (width + GAP)));
    if (across < 1 || height < 1) return null;
    if (!isNumbered && across >= 16 && across < count) across -= across % 8; // rows begin at round numbers
    const down = Math.ceil(count / across);
    if (isNumbered) across = Math.ceil(count / down);
    const [right, below] = [width + GAP, height + GAP + strip]; // from one tile to the next
    const boxes = [...Array(count).keys()].map((n) =>
      [left + (n % across) * right, strip + Math.floor(n / across) * below, width, height]);
    const size = { width: left + across * right - GAP, height: down * below - GAP };
    return { ...size, columns: across, tile: [width, height], boxes, isNumbered };
  }

  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
    element.textContent = text;
    return element;
  };

  /* What stands over the tiles: a hairline around each, a stroke through the empty, and their numbers, or
     those of each row's first. */
  function labels({ boxes, columns, isNumbered, tile: [width, height] }, names, empty) {
    const every = Math.ceil(13 / height); // rows, where they are lower than a number
    const there = boxes.map((box, n) => [box, n]).filter(([, n]) =>
      isNumbered || (n % columns === 0 && Math.floor(n / columns) % every === 0));
    const texts = there.map(([[x, y], n]) => {
      const name = names[n].length * 6 > width ? names[n].split(" ")[0] : names[n];
      return isNumbered
        ? svg("text", { x, y: y - 5 }, name)
        : svg("text", { x: x - 6, y: y + Math.min(height, 24) / 2 + 4, class: "first" }, name);
    });
    const crossed = boxes.filter((_, n) => empty[n]);
    const strokes = crossed.map(([x, y]) => `M${x} ${y + height}l${width} ${-height}`);
    const lines = boxes.map(([x, y]) => `M${x - 0.5} ${y - 0.5}h${width + 1}v${height + 1}h${-width - 1}z`);
    const paths = [{ d: lines.join(""), class: "hairline" }, { d: strokes.join("") || "M0 0" }];
    return [...paths.map((path) => svg("path", path)), ...texts];
  }

  /* A sheet in its frame. `choose` is called with the place of a unit in `units`, and whether the reader is
     stepping; `enlarge` when one is asked for alone. */
  class Sheet {
    constructor(frame, choose, enlarge) {
      Object.assign(this, { frame, choose, enlarge });
      this.canvas = make("canvas", { role: "img" });
      this.over = svg("svg", { "aria-hidden": "true" });
      this.pick = make("button", { type: "button", class: "pick", keydown: (event) => this.pressed(event) });
      this.within = make("div", { class: "tiles", click: (event) => this.clicked(event), dblclick: enlarge },
        this.canvas, this.over, this.pick);
      this.within.addEventListener("pointermove", (event) => {
        const i = this.under(event);
        this.canvas.title = i === null ? "" : `unit ${this.names[i - this.first]}`;
      });
      frame.append(this.within);
    }

    /* Paint a view of a layer in the order that is asked for, the part of it that unit `state.unit` is in.
       Gives the scale of its bar. */
    show({ net, layer, told }, state, view, images) {
      this.view = view;
      this.units = convatlas.ordered(told, state, view.units);
      this.within.hidden = !this.units.length;
      if (!this.units.length) return { colours: "grey", ends: null };
      this.at = this.units.indexOf(state.unit);
      this.first = Math.floor(Math.max(0, this.at) / MOST) * MOST;
      const places = new Map(view.units.map((unit, i) => [unit, i]));
      const which = this.units.slice(this.first, this.first + MOST).map((unit) => places.get(unit));
      const count = which.length;
      const least = matchMedia("(pointer: coarse)").matches ? 44 : 24;
      this.plan = arrange(this.frame.clientWidth - 12, innerHeight * 0.72, count, view.tile, least);
      const colours = convatlas.table(view, state.colours);
      const scale = (i) =>
        convatlas.ends(convatlas.span(net, layer, told, state.show, state.scale, view.units[i]), colours);
      const one = state.scale === "unit" ? null : scale(0);
      Object.assign(this.canvas, { width: this.plan.width, height: this.plan.height });
      convatlas.paint(this.canvas, view, images, which, this.plan.boxes, one ? () => one : scale);
      convatlas.tint(this.canvas, colours);
      this.names = which.map((i) => `${view.units[i]} ${convatlas.called(net, layer, view.units[i])}`.trim());
      const empty = which.map((i) => view.low(i) === view.high(i) && view.high(i) === 0);
      this.over.replaceChildren(...labels(this.plan, this.names, empty));
      for (const key of ["width", "height"]) this.over.setAttribute(key, this.plan[key]);
      this.ring(this.plan.boxes[Math.max(0, this.at - this.first)]);
      return { colours: colours || "grey", ends: one };
    }

    /* Put the ring, which has the keyboard's focus, around the chosen tile. */
    ring([x, y, width, height]) {
      const style = { left: x, top: y, width, height };
      for (const [key, value] of Object.entries(style)) this.pick.style[key] = `${value}px`;
      this.pick.classList.toggle("absent", this.at < 0);
      const { scrollTop, clientHeight } = this.frame;
      if (y < scrollTop || y + height > scrollTop + clientHeight) {
        this.frame.scrollTop = Math.max(0, y - clientHeight / 2);
      }
    }

    /* The tile under a pointer, its number and the gap beside it included: its place in the view, or null. */
    under(event) {
      const { left, top } = this.canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - left, event.clientY - top];
      const strip = this.plan.isNumbered ? STRIP : 0;
      const n = this.plan.boxes.findIndex(([bx, by, width, height]) =>
        x >= bx && x < bx + width + GAP && y >= by - strip && y < by + height + GAP);
      return n < 0 ? null : this.first + n;
    }

    clicked(event) {
      const byKey = event.detail === 0;
      const i = byKey ? Math.max(0, this.at) : this.under(event);
      if (i === null) return;
      this.choose(i, false);
      this.pick.focus({ preventScroll: true });
      if (byKey || matchMedia("(max-width: 60rem)").matches) this.enlarge();
    }

    pressed(event) {
      const { columns } = this.plan;
      const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      const i = this.at + by;
      if (i >= 0 && i < this.units.length) this.choose(i, true);
    }

    /* The units of this part of the sheet, and the place to go to for the part before or after. */
    get part() {
      const isWhole = this.units.length <= MOST;
      return { first: this.names[0], last: this.names.at(-1), all: this.units.length, isWhole };
    }

    beside(by) {
      return Math.max(0, Math.min(this.units.length - 1, this.first + by * MOST));
    }
  }

  Object.assign(convatlas, { arrange, Sheet });
})();
