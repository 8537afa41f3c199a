"use strict";

/* All units of a layer as a grid of numbered tiles, laid out for the available width. Tiles are enlarged by an integer
   factor without smoothing, and separated by a gap that is not part of the image. */

(() => {
  const GAP = 2; // pixels between tiles
  const LABEL_HEIGHT = 16; // pixels of a tile's number, above the tile
  const LABEL_WIDTH = 40; // pixels of the number of a row's first tile, where tiles have no number each
  const MAX_NUMBERED_TILES = 256; // tiles up to which each has a number
  const MIN_NUMBERED_WIDTH = 26; // pixels of a tile that has a number of its own
  const MAX_TILES = 1024; // tiles of one grid; a layer with more units is split into pages
  const SCALE_FACTORS = [1 / 8, 1 / 4, 1 / 3, 1 / 2, ...[...Array(56).keys()].map((n) => n + 1)];

  /* Choose the layout of `count` tiles [height, width] in a grid `room` pixels wide: the largest tiles whose grid is no
     higher than `maxHeight`, else the smallest that are `minTileSize` pixels wide, the size of a pointer target. */
  function chooseLayout(room, maxHeight, count, tile, minTileSize) {
    const layouts = SCALE_FACTORS.map((factor) => tryLayout(room, count, tile, factor, minTileSize)).filter(Boolean);
    const wideLayouts = layouts.filter((layout) => layout.tile[0] >= minTileSize);
    const maxTileSize = tile[1] === 1 ? 56 : Math.max(208, room / 4); // a single value needs little room
    const fitting = wideLayouts.filter((layout) =>
      layout.height <= maxHeight && Math.max(...layout.tile) <= maxTileSize);
    return fitting.at(-1) || wideLayouts[0] || layouts.at(-1);
  }

  /* The layout for one scale factor; null where not even one tile fits. */
  function tryLayout(room, count, [tileRows, tileColumns], factor, minTileSize) {
    const width = Math.round(tileColumns * factor);
    const isStrip = tileRows === 1 && tileColumns > 1; // a row of values, drawn higher
    const height = isStrip ? minTileSize : Math.round(tileRows * factor);
    const isNumbered = count <= MAX_NUMBERED_TILES && width >= MIN_NUMBERED_WIDTH;
    const [left, labelHeight] = isNumbered ? [0, LABEL_HEIGHT] : [LABEL_WIDTH, 0];
    let columns = Math.min(count, Math.floor((room - left + GAP) / (width + GAP)));
    if (columns < 1 || height < 1) return null;
    if (!isNumbered && columns >= 16 && columns < count) columns -= columns % 8; // rows start at multiples of 8
    const rows = Math.ceil(count / columns);
    if (isNumbered) columns = Math.ceil(count / rows);
    const [pitchX, pitchY] = [width + GAP, height + GAP + labelHeight];
    const boxes = [...Array(count).keys()].map((n) =>
      [left + (n % columns) * pitchX, labelHeight + Math.floor(n / columns) * pitchY, width, height]);
    const size = { width: left + columns * pitchX - GAP, height: rows * pitchY - GAP };
    return { ...size, columns, tile: [width, height], boxes, isNumbered };
  }

  /* The overlay of a grid: a hairline around each tile, a stroke through the empty ones, and the numbers of the tiles
     or of each row's first. */
  function renderLabels({ boxes, columns, isNumbered, tile: [width, height] }, names, isEmpty) {
    const rowsPerLabel = Math.ceil(13 / height); // where rows are lower than a number
    const labelled = boxes.map((box, n) => [box, n]).filter(([, n]) =>
      isNumbered || (n % columns === 0 && Math.floor(n / columns) % rowsPerLabel === 0));
    const texts = labelled.map(([[x, y], n]) => {
      const name = names[n].length * 6 > width ? names[n].split(" ")[0] : names[n];
      return isNumbered
        ? makeSvgElement("text", { x, y: y - 5 }, name)
        : makeSvgElement("text", { x: x - 6, y: y + Math.min(height, 24) / 2 + 4, class: "row-label" }, name);
    });
    const emptyBoxes = boxes.filter((_, n) => isEmpty[n]);
    const strokes = emptyBoxes.map(([x, y]) => `M${x} ${y + height}l${width} ${-height}`);
    const hairlines = boxes.map(([x, y]) => `M${x - 0.5} ${y - 0.5}h${width + 1}v${height + 1}h${-width - 1}z`);
    const paths = [{ d: hairlines.join(""), class: "hairline" }, { d: strokes.join("") || "M0 0" }];
    return [...paths.map((path) => makeSvgElement("path", path)), ...texts];
  }

  /* The grid in a scrolling frame. `onChoose` is called with an index into `units` and whether the reader is stepping,
     `onZoom` when a unit is to be zoomed, `onTap` after a unit is chosen by the pointer. */
  class UnitGrid {
    constructor(frame, onChoose, onZoom, onTap) {
      Object.assign(this, { frame, onChoose, onZoom, onTap });
      this.canvas = makeElement("canvas", { role: "img" });
      this.overlay = makeSvgElement("svg", { "aria-hidden": "true" });
      this.focusButton = makeElement("button",
        { type: "button", class: "grid-focus", keydown: (event) => this.onKey(event) });
      this.container = makeElement("div",
        { class: "tiles", click: (event) => this.onClick(event), dblclick: onZoom },
        this.canvas, this.overlay, this.focusButton);
      this.container.addEventListener("pointermove", (event) => {
        const index = this.tileAt(event);
        this.canvas.title = index === null ? "" : `unit ${this.names[index - this.first]}`;
      });
      frame.append(this.container);
    }

    /* Draw the units of a view in the order of `state`, on the page with unit `state.unit`. Returns the colour map
       and the limits of the colour bar, null where the scale differs from unit to unit. */
    show({ net, layer, data }, state, view, images) {
      this.view = view;
      this.units = convatlas.sortUnits(data, state, view.units);
      this.container.hidden = !this.units.length;
      if (!this.units.length) return { colormap: "grey", limits: null };
      this.index = this.units.indexOf(state.unit);
      this.first = Math.floor(Math.max(0, this.index) / MAX_TILES) * MAX_TILES;
      const tileIndices = new Map(view.units.map((unit, index) => [unit, index]));
      const indices = this.units.slice(this.first, this.first + MAX_TILES).map((unit) => tileIndices.get(unit));
      const minTileSize = matchMedia("(pointer: coarse)").matches ? 44 : 24;
      this.layout = chooseLayout(
        this.frame.clientWidth - 12, innerHeight * 0.72, indices.length, view.tile_size, minTileSize);
      const colormap = convatlas.chooseColormap(view, state.colours);
      const getLimits = (index) => {
        const unit = view.units[index];
        return convatlas.getScaleLimits(
          convatlas.getRange(net, layer, data, state.show, state.scale, unit), colormap);
      };
      const limits = state.scale === "unit" ? null : getLimits(0);
      const { boxes, width, height } = this.layout;
      Object.assign(this.canvas, { width, height });
      convatlas.drawTiles(this.canvas, view, images, indices, boxes, limits ? () => limits : getLimits, colormap);
      convatlas.applyColormap(this.canvas, colormap);
      this.names = indices.map((index) => view.units[index]).map((unit) =>
        `${unit} ${convatlas.getClassName(net, layer, unit)}`.trim());
      const isEmpty = indices.map((index) => view.min(index) === 0 && view.max(index) === 0);
      this.overlay.replaceChildren(...renderLabels(this.layout, this.names, isEmpty));
      for (const key of ["width", "height"]) this.overlay.setAttribute(key, this.layout[key]);
      this.moveFocus(boxes[Math.max(0, this.index - this.first)]);
      return { colormap: colormap || "grey", limits };
    }

    /* Place the button that has the keyboard's focus around the selected tile, and scroll to it. */
    moveFocus([x, y, width, height]) {
      const style = { left: x, top: y, width, height };
      for (const [key, value] of Object.entries(style)) this.focusButton.style[key] = `${value}px`;
      this.focusButton.classList.toggle("absent", this.index < 0);
      const { scrollTop, clientHeight } = this.frame;
      if (y < scrollTop || y + height > scrollTop + clientHeight) {
        this.frame.scrollTop = Math.max(0, y - clientHeight / 2);
      }
    }

    /* The index of the tile at a pointer, including its number and gap; null where there is none. */
    tileAt(event) {
      const { left, top } = this.canvas.getBoundingClientRect();
      const [x, y] = [event.clientX - left, event.clientY - top];
      const labelHeight = this.layout.isNumbered ? LABEL_HEIGHT : 0;
      const n = this.layout.boxes.findIndex(([boxX, boxY, width, height]) =>
        x >= boxX && x < boxX + width + GAP && y >= boxY - labelHeight && y < boxY + height + GAP);
      return n < 0 ? null : this.first + n;
    }

    onClick(event) {
      const isByKey = event.detail === 0;
      const index = isByKey ? Math.max(0, this.index) : this.tileAt(event);
      if (index === null) return;
      if (isByKey) return this.onZoom();
      this.onChoose(index, false);
      this.focusButton.focus({ preventScroll: true });
      this.onTap();
    }

    onKey(event) {
      const { columns } = this.layout;
      const offset = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
      if (offset === undefined) return;
      event.preventDefault();
      const index = this.index + offset;
      if (index >= 0 && index < this.units.length) this.onChoose(index, true);
    }

    /* The names of the first and last unit on this page of the grid, and the number of all units. */
    get page() {
      const isOnly = this.units.length <= MAX_TILES;
      return { first: this.names[0], last: this.names.at(-1), nUnits: this.units.length, isOnly };
    }

    /* The units on this page of the grid. */
    get shownUnits() {
      return this.units.slice(this.first, this.first + MAX_TILES);
    }

    /* The index of the first unit on the previous (-1) or next (1) page. */
    getPageStart(step) {
      return Math.max(0, Math.min(this.units.length - 1, this.first + step * MAX_TILES));
    }
  }

  Object.assign(convatlas, { chooseLayout, UnitGrid });
})();
