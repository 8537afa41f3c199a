"use strict";

/* A map beside its image: a position of the map outlines its receptive field on the image, and a position on the image
   shows which units respond most there. The pointer previews, a click, a tap or the arrow keys choose. */

(() => {
  const { formatNumber, formatShape, formatCount } = convatlas;
  const N_UNITS = 8; // that are listed
  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const HINT = "Point at a position, tap it or use the arrow keys: on the map for its receptive field, on the image " +
    "for the units that respond most there.";

  /* The outline of a box of pixels, over a picture of a size [height, width]; of a single pixel with a cross. */
  class Marks {
    constructor(frame) {
      this.element = makeSvgElement("svg", { class: "marks", preserveAspectRatio: "none", "aria-hidden": "true" });
      frame.append(this.element);
    }

    draw([height, width], box) {
      this.element.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const [y, x] = box ? box.start : [0, 0];
      const size = box ? { x, y, width: box.end[1] - x, height: box.end[0] - y } : null;
      const rectangles = size ? ["halo", "outline"].map((name) => makeSvgElement("rect", { class: name, ...size })) : [];
      const isPixel = size && size.width === 1 && size.height === 1 && Math.max(height, width) > 64;
      const cross = isPixel ? [makeSvgElement("path", { d: `M${x + 0.5} 0V${height}M0 ${y + 0.5}H${width}` })] : [];
      this.element.replaceChildren(...cross, ...rectangles);
    }
  }

  class PositionView {
    /* `frames` are the elements around the map and around the image; `onChange` is called with a unit. */
    constructor(frames, onChange) {
      Object.assign(this, { frames, onChange, chosen: null, preview: null });
      this.marks = { map: new Marks(frames.map), image: new Marks(frames.image) };
      this.readout = makeElement("p", { class: "readout", role: "status" });
      this.list = makeElement("ol", { class: "responding-units" });
      this.note = makeElement("p", { class: "fine precision" });
      this.element = makeElement("div", { class: "position" },
        frames.map, this.readout, frames.image, this.list, this.note);
      for (const name of ["map", "image"]) this.addListeners(name);
    }

    addListeners(name) {
      const frame = this.frames[name];
      frame.addEventListener("pointermove", (event) => {
        if (event.pointerType === "touch" || this.chosen) return;
        this.preview = this.locate(name, event);
        this.draw();
      });
      frame.addEventListener("click", (event) => {
        const target = this.locate(name, event);
        const isSame = this.chosen && JSON.stringify(this.chosen) === JSON.stringify(target);
        this.preview = target;
        this.chosen = isSame ? null : target; // a second click lets the pointer preview again
        this.draw();
      });
      frame.addEventListener("keydown", (event) => {
        const step = STEPS[event.key];
        if (!step || event.altKey || event.ctrlKey || event.metaKey || !this.loaded) return;
        event.preventDefault();
        event.stopPropagation(); // in the dialog these keys go to the next unit
        const size = this.getSize(name);
        const current = this.current && this.current.name === name
          ? this.current.at : size.map((length) => Math.floor(length / 2));
        const at = current.map((index, axis) => Math.max(0, Math.min(size[axis] - 1, index + step[axis])));
        this.chosen = { name, at };
        this.draw();
      });
    }

    get current() {
      return this.chosen || this.preview;
    }

    /* The height and width of the map in values, or of the image in pixels. */
    getSize(name) {
      const { net, layer, state } = this.loaded;
      return name === "map" ? layer.shape.slice(1) : net.inputs[state.image].size;
    }

    /* The position under a pointer. */
    locate(name, event) {
      if (!this.loaded) return null;
      const { left, top, width, height } = this.frames[name].getBoundingClientRect();
      const fractions = [(event.clientY - top) / height, (event.clientX - left) / width];
      const size = this.getSize(name);
      const at = fractions.map((part, axis) => Math.max(0, Math.min(size[axis] - 1, Math.floor(part * size[axis]))));
      return { name, at };
    }

    /* Show a unit: its network, layer and state, and the view of the layer's maps with its sheets. */
    show(net, layer, state, view, sheets) {
      const hasPositions = convatlas.hasPositions(layer);
      const isOther = !this.loaded || this.loaded.net !== net || this.loaded.layer !== layer;
      if (isOther && this.current && this.current.name === "map") this.chosen = this.preview = null;
      if (this.loaded && this.loaded.state.image !== state.image) this.preview = null;
      this.loaded = hasPositions ? { net, layer, state, view, sheets } : null;
      this.noPositions = layer.shape.length > 1 ? "Positions are those of maps with rows and columns."
        : "Each unit of this layer has one value, which depends on all of the image: no positions.";
      this.readValue = hasPositions ? convatlas.readValues(view, sheets, net.levels) : null;
      this.frames.image.hidden = !hasPositions;
      const label = `unit ${state.unit} of ${layer.name}; arrow keys choose a position`;
      this.makeFocusable(this.frames.map, hasPositions, `Map of ${label}`);
      this.makeFocusable(this.frames.image, hasPositions, `${state.image}, input of ${label}`);
      this.draw();
    }

    makeFocusable(frame, isFocusable, label) {
      const attributes = { tabindex: 0, role: "group", "aria-label": label };
      for (const [key, value] of Object.entries(attributes)) {
        if (isFocusable) frame.setAttribute(key, value);
        else frame.removeAttribute(key);
      }
    }

    draw() {
      this.list.replaceChildren();
      this.note.textContent = "";
      if (!this.loaded) {
        this.marks.map.draw([1, 1], null);
        this.readout.textContent = this.noPositions;
        return;
      }
      const { current } = this;
      const boxes = { map: null, image: null };
      if (!current) this.readout.textContent = HINT;
      else Object.assign(boxes, current.name === "map" ? this.describePosition(current.at) : this.describePixel(current.at));
      for (const name of ["map", "image"]) this.marks[name].draw(this.getSize(name), boxes[name]);
    }

    /* Describe the value at a position of the map and its receptive field; returns the boxes to outline. */
    describePosition(at) {
      const { layer, state, view, net } = this.loaded;
      const size = this.getSize("image");
      const box = convatlas.getFieldBox(layer, at, size);
      const index = view.units.indexOf(state.unit);
      const value = this.readValue(index, ...at);
      const precision = convatlas.getPrecision(view, index, net.levels);
      const number = value === null ? "NaN or infinite" : `${formatNumber(value)}${formatPrecision(precision)}`;
      this.readout.textContent = `Row ${at[0]}, column ${at[1]}: ${number}. ${describeField(layer, box)}`;
      return { map: { start: at, end: at.map((i) => i + 1) }, image: box };
    }

    /* List the units that respond most to a pixel of the image; returns the boxes to outline. */
    describePixel(at) {
      const { layer, state, view, net } = this.loaded;
      const positions = convatlas.findPositions(layer, at, this.getSize("image"));
      const image = { start: at, end: at.map((pixel) => pixel + 1) };
      const pixel = `Pixel in row ${at[0]}, column ${at[1]}`;
      if (!positions) {
        const isKnown = convatlas.getFieldBox(layer, [0, 0], this.getSize("image"));
        this.readout.textContent = isKnown ? `${pixel}: in the receptive field of no position of ${layer.name}.`
          : `${pixel}: the place of the receptive fields of ${layer.name} is not known.`;
        return { map: null, image };
      }
      const tiles = convatlas.rankTiles(view, this.readValue, positions, N_UNITS);
      const places = describeRange(positions, "position");
      this.readout.textContent = `${pixel}: in the receptive field of ${places}. Units with the largest value there:`;
      this.list.replaceChildren(...tiles.map(({ index, value, position }) => {
        const unit = view.units[index];
        const name = convatlas.getClassName(net, layer, unit);
        const text = `unit ${unit}${name ? `, ${name}` : ""}`;
        const place = `at row ${position[0]}, column ${position[1]}`;
        const button = makeElement("button", { type: "button", class: "link-button", "aria-label": `${text}, ${place}`,
          "aria-current": String(unit === state.unit),
          click: () => { this.chosen = this.current; this.onChange({ unit }); } }, text);
        const precision = formatPrecision(convatlas.getPrecision(view, index, net.levels));
        return makeElement("li", { title: place }, button, ` ${formatNumber(value)}${precision}`);
      }));
      this.note.textContent = `Values in ${net.levels} steps from each unit’s minimum to its maximum on the image.`;
      return { map: positions, image };
    }
  }

  const formatPrecision = (precision) => (precision > 0 ? ` ± ${formatNumber(Number(precision.toPrecision(1)))}` : "");

  /* A range of rows and columns, as in "rows 3 to 5, columns 7 to 9 (9 positions)". */
  function describeRange({ start, end }, noun) {
    const axes = ["row", "column"].map((name, axis) => (end[axis] - start[axis] === 1
      ? `${name} ${start[axis]}` : `${name}s ${start[axis]} to ${end[axis] - 1}`));
    const count = (end[0] - start[0]) * (end[1] - start[1]);
    return `${axes.join(", ")} (${formatCount(count, noun)})`;
  }

  function describeField({ receptive_field: field, name }, box) {
    if (!box) return `The place of the receptive fields of ${name} is not known.`;
    if (box.isGlobal) return "Receptive field: all of the image.";
    if (box.start.some((pixel, axis) => pixel >= box.end[axis])) return "Receptive field: padding only.";
    const clipped = box.isClipped ? `, of ${formatShape(field)} with padding` : "";
    return `Receptive field: ${describeRange(box, "pixel").replace(")", `${clipped})`)}.`;
  }

  convatlas.PositionView = PositionView;
})();
