"use strict";

/* One unit in detail: the explorer shows one panel beside its grid, the comparison page two. */

(() => {
  /* Format a number with three significant digits and a true minus sign; null stands for NaN. */
  function formatNumber(value) {
    if (value === null) return "NaN";
    const isTiny = value !== 0 && Math.abs(value) < 1e-3;
    const digits = isTiny ? value.toExponential(1) : Number(value.toPrecision(3));
    return String(digits).replace(/-/g, "−").replace("e+", "e");
  }

  const formatPercent = (fraction) => `${formatNumber(100 * fraction)} %`;
  const formatShape = (shape) => shape.join(" × ");
  const formatCount = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

  /* The class of a unit whose value is the score of a class; "" where its name is the unit's index. */
  function getClassName(net, layer, unit) {
    const name = (layer.is_class_score && net.classes[unit]) || "";
    return name === String(unit) ? "" : name;
  }

  /* The kernel and the receptive field of a layer, as in "3 × 3" and "receptive field 5 × 5". */
  const describeKernel = (layer) => (layer.kernel ? `${layer.type} ${formatShape(layer.kernel)}` : layer.type);
  const describeReceptiveField = (layer) =>
    (layer.receptive_field ? `receptive field ${formatShape(layer.receptive_field)}` : "receptive field not known");

  /* A number of a unit's values on an image; null where all, or some of a mean, are NaN or infinite. */
  function formatValue({ non_finite: nonFinite, infinite }, value, unit) {
    return value === null && infinite[unit] === nonFinite[unit] ? "±∞" : formatNumber(value);
  }

  /* The values of a unit on an image, as text; without spatial axes there is a single value. */
  function describeValues(maps, unit, layer) {
    const [min, max, mean] = [maps.min, maps.max, maps.mean].map((list) => formatValue(maps, list[unit], unit));
    if (Math.max(...layer.tile_size) === 1) return min;
    const nNonFinite = maps.non_finite ? maps.non_finite[unit] : 0;
    const count = nNonFinite ? `, ${formatCount(nNonFinite, "NaN or infinite value")}` : "";
    return `${min} to ${max}, mean ${mean}, ${formatPercent(maps.zero_fraction[unit])} zero${count}`;
  }

  /* The legend of the marks of a view, as a list of no element or one. */
  const renderNonFiniteLegend = (view) => (view.marks.length
    ? [makeElement("p", { class: "non-finite-legend" }, makeElement("span", { "aria-hidden": "true" }), "NaN or ±∞")]
    : []);

  /* The colour bar of a scale: a grey ramp under the same filter as the tiles. `labels` replace the limits where the
     scale differs from unit to unit. */
  function renderColorbar(colormap, [min, max], labels = null) {
    const ramp = makeElement("canvas", { width: 256, height: 1, "aria-hidden": "true" });
    const context = ramp.getContext("2d");
    for (let grey = 0; grey < 256; grey++) {
      context.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
      context.fillRect(grey, 0, 1, 1);
    }
    convatlas.applyColormap(ramp, colormap);
    const zero = -min / (max - min);
    const limits = labels || [formatNumber(min), formatNumber(max)];
    const zeroLabel = zero > 0.12 && zero < 0.88 ? makeElement("span", { class: "zero" }, "0") : null;
    if (zeroLabel) zeroLabel.style.left = `${100 * zero}%`;
    const text = `Scale from ${limits[0]} to ${limits[1]}`;
    return makeElement("div", { class: "scale", role: "img", "aria-label": text }, ramp,
      makeElement("div", { class: "limits", "aria-hidden": "true" },
        makeElement("span", {}, limits[0]), zeroLabel, makeElement("span", {}, limits[1])));
  }

  /* Draw one tile on a canvas, enlarged to the `room` [width, height]. */
  function drawTile(canvas, view, images, index, limits, colormap, room, label) {
    const [height, width] = view.tile_size;
    fitCanvas(canvas, view.tile_size, room);
    if (label) canvas.setAttribute("role", "img");
    if (label) canvas.setAttribute("aria-label", label);
    convatlas.drawTiles(canvas, view, images, [index], [[0, 0, width, height]], () => limits, colormap);
    convatlas.applyColormap(canvas, colormap);
    return canvas;
  }

  /* Size a canvas to a tile, enlarged by an integer factor as far as the room [width, height] allows; a strip of
     values is drawn higher than it is. */
  function fitCanvas(canvas, [height, width], [maxWidth, maxHeight]) {
    const largest = Math.min(maxWidth / width, maxHeight / height);
    const factor = largest >= 1 ? Math.floor(largest) : largest;
    Object.assign(canvas, { width, height });
    canvas.style.width = `${Math.round(width * factor)}px`;
    canvas.style.height = `${Math.round(Math.max(height * factor, height === 1 ? 24 : 1))}px`;
    return canvas;
  }

  /* Load the data that a unit's panel needs: its network, its layer and the data of the layer's units. */
  async function loadUnit(state) {
    const net = await convatlas.loadNetwork(state.network);
    const layer = net.layers.find(({ name }) => name === state.layer);
    return { net, layer, data: await convatlas.loadUnits(net, layer) };
  }

  /* The colour map and the scale limits of a unit's tiles in a view. `state.linkedRanges` may hold ranges, by kind of
     view, that replace the unit's own. */
  function getScale({ net, layer, data }, state, kind, view) {
    const colormap = convatlas.chooseColormap(view, state.colours);
    const linkedRange = state.linkedRanges && state.linkedRanges[kind];
    const range = linkedRange || convatlas.getRange(net, layer, data, kind, state.scale, state.unit);
    return { colormap, limits: convatlas.getScaleLimits(range, colormap) };
  }

  /* The panel of one unit. `state` has network, layer, unit, image, scale, colours and overlay; `onChange` is called
     with the values that the reader changes. */
  class UnitPanel {
    constructor(parent, onChange) {
      this.onChange = onChange;
      this.map = makeElement("canvas", { class: "map" });
      this.input = makeElement("img", { class: "input", alt: "" });
      this.mapFrame = makeElement("div", { class: "map-frame canvas-frame" }, this.input, this.map);
      this.image = makeElement("img", { alt: "" });
      this.imageFrame = makeElement("div", { class: "image-frame canvas-frame" }, this.image);
      this.positions = new convatlas.PositionView({ map: this.mapFrame, image: this.imageFrame }, onChange);
      this.colorbar = makeElement("div");
      this.slider = makeElement("input", { type: "range", min: 0, max: 100, step: 5,
        input: () => this.updateOpacity(),
        change: () => onChange({ overlay: Number(this.slider.value) }, true) });
      this.opacity = makeElement("output", {});
      this.opacityControl = makeElement("label", { class: "opacity-control" },
        "Map opacity", this.slider, this.opacity);
      this.tools = makeElement("div");
      this.description = makeElement("p", { class: "description" });
      this.details = makeElement("div", { class: "unit-details" });
      const mapView = makeElement("div", { class: "map-view" }, this.positions.element, this.colorbar,
        this.opacityControl);
      parent.append(mapView, this.tools, this.description, this.details);
      onSwipe(this.mapFrame, (step) => onChange({ step }));
    }

    updateOpacity() {
      const value = Number(this.slider.value);
      this.map.style.opacity = value / 100;
      // Over its image a map takes the image's aspect ratio, from which its own differs by the strides of its axes.
      this.map.style.height = value === 100 ? this.mapHeight : this.overlayHeight;
      this.opacity.textContent = `${value} %`;
      this.input.hidden = value === 100;
      if (value < 100 && this.input.src !== this.inputUrl) this.input.src = this.inputUrl; // loaded when visible
    }

    /* Show a unit, its map within `room` [width, height]. A call that a later one overtakes draws nothing. */
    async show(state, room) {
      const call = (this.calls = (this.calls || 0) + 1);
      const loaded = await loadUnit(state);
      const { net, layer, data } = loaded;
      const view = convatlas.getView(net, layer, data, "maps", state.image);
      const images = await convatlas.loadImages(view);
      const figures = await Promise.all([this.renderFilter(loaded, state), this.renderProjections(loaded, state)]);
      if (call !== this.calls) return;
      const scale = getScale(loaded, state, "maps", view);
      const isSingleValue = Math.max(...view.tile_size) === 1;
      drawTile(this.map, view, images, state.unit, scale.limits, scale.colormap, isSingleValue ? [96, 96] : room,
        `Map of unit ${state.unit} of ${layer.name} on ${convatlas.titleImage(net, state.image)}`);
      const hasSpatialAxes = view.tile_size[0] > 1 && view.tile_size[1] > 1; // only then the map can overlay its image
      const [inputHeight, inputWidth] = net.inputs[state.image].size;
      this.mapHeight = this.map.style.height;
      this.overlayHeight = `${Math.round((parseInt(this.map.style.width, 10) * inputHeight) / inputWidth)}px`;
      this.inputUrl = convatlas.toUrl(`explorer/${net.name}/${net.inputs[state.image].file}`);
      if (this.image.src !== this.inputUrl) onVisible(this.imageFrame, async () => { this.image.src = this.inputUrl; });
      this.imageFrame.style.setProperty("--aspect", inputWidth / inputHeight);
      this.imageFrame.classList.toggle("tiny", Math.max(inputHeight, inputWidth) <= 64);
      this.positions.show(net, layer, state, view, images);
      this.opacityControl.hidden = !hasSpatialAxes;
      this.slider.value = hasSpatialAxes ? state.overlay : 100;
      this.updateOpacity();
      this.colorbar.replaceChildren(renderColorbar(scale.colormap, scale.limits), ...renderNonFiniteLegend(view));
      this.description.replaceChildren(...describeUnit(loaded, state));
      const pictures = [renderOptimised(net, layer, state.unit), ...figures.flat()].filter(Boolean);
      this.replaceDetails(...pictures, ...convatlas.renderStatistics(loaded, state.unit),
        this.renderAllImages(loaded, state, scale, isSingleValue), renderImageTable(loaded, state));
    }

    /* Replace the details; the keyboard's focus stays on the control of the same label. */
    replaceDetails(...elements) {
      const { activeElement } = document;
      const focusedLabel = this.details.contains(activeElement) && activeElement.getAttribute("aria-label");
      this.details.replaceChildren(...elements);
      if (focusedLabel === false) return;
      const control = focusedLabel && this.details.querySelector(`[aria-label="${CSS.escape(focusedLabel)}"]`);
      (control || this.details.querySelector("button")).focus({ preventScroll: true });
    }

    async renderFilter(loaded, state) {
      const { net, layer, data } = loaded;
      if (!layer.filters) return data.weights ? renderWeights(layer, data.weights, state.unit) : null;
      const view = convatlas.getView(net, layer, data, "filters", state.image);
      const { colormap, limits } = getScale(loaded, state, "filters", view);
      const images = await convatlas.loadImages(view);
      const maxAbs = data.filters.max_abs[state.unit];
      const canvas = drawTile(makeElement("canvas"), view, images, state.unit, limits, colormap, [160, 160],
        `Filter of unit ${state.unit} of ${layer.name}, from ${formatNumber(-maxAbs)} to ${formatNumber(maxAbs)}`);
      const colorbar = renderColorbar(colormap || "grey", limits);
      return renderSideFigure("Filter", canvas, colorbar, describeWeights(layer, data, state.unit, view));
    }

    async renderProjections(loaded, state) {
      const { net, layer, data } = loaded;
      if (!layer.deconv) return null;
      const projected = layer.deconv.units[state.image];
      const index = projected.indexOf(state.unit);
      if (index < 0) return [this.renderProjectedUnits(projected, convatlas.titleImage(net, state.image))];
      const kinds = convatlas.getViewKinds(layer).filter((kind) => kind in PROJECTION_TITLES);
      return Promise.all(kinds.map(async (kind) => {
        const view = convatlas.getView(net, layer, data, kind, state.image);
        const { colormap, limits } = getScale(loaded, state, kind, view);
        const images = await convatlas.loadImages(view);
        const canvas = drawTile(makeElement("canvas"), view, images, index, limits, colormap, [160, 160],
          `${PROJECTION_TITLES[kind]} of unit ${state.unit} of ${layer.name} on ${convatlas.titleImage(net, state.image)}`);
        const note = view.max(index) === 0 ? "All zero: the unit is inactive on this image." : null;
        return renderSideFigure(PROJECTION_TITLES[kind], canvas, renderColorbar(colormap || "grey", limits), note);
      }));
    }

    /* The units that are projected on an image, as buttons, for a unit that is not. */
    renderProjectedUnits(projected, image) {
      const buttons = projected.slice(0, 16).map((unit) => makeElement("button",
        { type: "button", class: "link-button", click: () => this.onChange({ unit }) }, String(unit)));
      const text = `Not projected on ${image}. Projected units:`;
      return makeElement("p", { class: "fine projected-units" }, text, ...buttons);
    }

    /* The unit's map on every sample image; each is loaded when it becomes visible, because it is in a file of its
       own. */
    renderAllImages({ net, layer, data }, state, scale, isSingleValue) {
      const list = makeElement("div", { class: "images" });
      const room = isSingleValue ? [40, 40] : [84, 84];
      for (const { name, title } of net.images) {
        const canvas = fitCanvas(makeElement("canvas"), layer.tile_size, room);
        const isCurrent = String(name === state.image);
        const button = makeElement("button", { type: "button", "aria-pressed": isCurrent, "aria-label": `On ${title}`,
          click: () => this.onChange({ image: name }) }, frameCanvas(canvas), makeElement("span", {}, title));
        list.append(button);
        onVisible(button, async () => {
          const view = convatlas.getView(net, layer, data, "maps", name);
          const images = await convatlas.loadImages(view);
          drawTile(canvas, view, images, state.unit, scale.limits, scale.colormap, room, "");
        });
      }
      return makeElement("div", { class: "all-images", role: "group", "aria-label": "All sample images" },
        makeElement("p", { class: "title" }, "All sample images"), list);
    }
  }

  const PROJECTION_TITLES = {
    projections: "Deconvnet projection (whole map)", peaks: "Deconvnet projection (peak)",
  };

  // A border of the canvas itself would be coloured by its filter.
  const frameCanvas = (canvas) => makeElement("span", { class: "canvas-frame" }, canvas);

  const renderSideFigure = (title, canvas, colorbar, note) =>
    makeElement("figure", { class: "side-figure" }, makeElement("figcaption", {}, title), frameCanvas(canvas), colorbar,
      note ? makeElement("p", { class: "fine" }, note) : null);

  /* The image that was optimised for a unit, with a link to its other visualisations; null without one. */
  function renderOptimised(net, { name, optimised }, unit) {
    if (!optimised || !optimised.units.includes(unit)) return null;
    const anchor = `${optimised.slug}-${unit}`;
    const page = `${convatlas.toUrl(`networks/${net.name}-feature-visualisation.html`)}#${anchor}`;
    const image = makeElement("img", { src: convatlas.toUrl(`features/${net.name}/${anchor}.webp`),
      alt: `Image optimised for unit ${unit} of ${name}: other visualisations of the unit` });
    return makeElement("figure", { class: "side-figure optimised" }, makeElement("figcaption", {}, "Optimised image"),
      makeElement("a", { href: page }, image), makeElement("p", { class: "fine" }, "With the other views of the unit."));
  }

  function describeWeights(layer, data, unit, view) {
    if (view.rgb) return "RGB, grey = 0.";
    const channels = data.filters.channels && data.filters.channels[unit];
    if (channels) return `Input channels with the largest norm: ${channels.join(", ")}.`;
    return layer.kernel ? null : "A tile per input channel, on the grid of the flattened maps.";
  }

  /* The weights of a unit that has one per input: their order is no place, so the largest are listed. */
  function renderWeights(layer, weights, unit) {
    const { inputs, max_abs: maxAbs, histogram } = weights;
    const highest = Math.max(...histogram);
    const bars = histogram.map((count, n) => makeSvgElement("rect",
      { x: n * 6, width: 5, y: 48 - (48 * count) / highest, height: (48 * count) / highest }));
    const limits = `${formatNumber(-maxAbs)} to ${formatNumber(maxAbs)}`;
    const chart = makeSvgElement("svg", { class: "weight-histogram", viewBox: `0 0 ${histogram.length * 6} 48`, role: "img",
      "aria-label": `Histogram of the weights of ${layer.name}, ${limits}` }, ...bars);
    const largest = weights.largest[unit].map((value, n) =>
      `input ${weights.largest_inputs[unit][n]}: ${formatNumber(value)}`);
    return makeElement("figure", { class: "side-figure" },
      makeElement("figcaption", {}, `Weights of ${layer.name}, ${limits}`), chart,
      makeElement("p", { class: "fine" }, `Histogram of all units. Largest of unit ${unit}, of ${formatCount(inputs, "input")}: `
        + `${largest.join(", ")}.`));
  }

  /* The unit's class, its classical match, and the images on which it is active, as text and elements. */
  function describeUnit({ net, layer, data }, { unit }) {
    const description = [];
    const className = getClassName(net, layer, unit);
    if (className) description.push(makeElement("strong", {}, className), ". ");
    const match = data.matches && data.matches[unit];
    if (match) description.push(`Matches: ${match.description} (r = ${formatNumber(match.r)}). `);
    else if (data.matches) description.push("No classical feature matched. ");
    if (data.concepts) {
      description.push(data.concepts[unit] ? `Separates: ${data.concepts[unit]}. ` : "No concept separated. ");
    }
    description.push(describeActivity(layer, Object.values(data.maps), unit));
    return description;
  }

  function describeActivity(layer, maps, unit) {
    const nNonFinite = maps.filter(({ non_finite: counts }) => counts && counts[unit]).length;
    if (nNonFinite) return `NaN or infinite values on ${nNonFinite} of ${formatCount(maps.length, "sample image")}.`;
    const nActive = maps.filter(({ max }) => max[unit] > 0).length;
    const isZero = maps.every(({ min, max }) => min[unit] === 0 && max[unit] === 0);
    const names = ["", "the sample image", "both sample images"];
    const allImages = names[maps.length] || `all ${maps.length} sample images`;
    if (layer.is_never_positive) return "Never positive, as every unit of this layer type.";
    if (isZero) return `Inactive: zero on ${allImages}.`;
    if (!nActive) return `No positive activation on ${allImages}.`; // inactive only where a ReLU follows
    if (nActive < maps.length) return `Active on ${nActive} of ${maps.length} sample images.`;
    return `Active on ${allImages}.`;
  }

  function renderImageTable({ net, layer, data }, state) {
    const isSingleValue = Math.max(...layer.tile_size) === 1;
    const makeCell = (text) => makeElement("td", { class: "number" }, text);
    const rows = Object.entries(data.maps).map(([image, maps]) => {
      const { min, max, mean, zero_fraction: zeroFraction } = maps;
      const lists = isSingleValue ? [min] : [min, mean, max]; // the mean of a single value has fewer digits
      const cells = lists.map((list) => makeCell(formatValue(maps, list[state.unit], state.unit)));
      if (!isSingleValue) cells.push(makeCell(formatPercent(zeroFraction[state.unit])));
      const attributes = image === state.image ? { class: "current" } : {};
      return makeElement("tr", attributes, makeElement("th", { scope: "row" }, convatlas.titleImage(net, image)), ...cells);
    });
    const columns = isSingleValue ? ["value"] : ["min", "mean", "max", "zero fraction"];
    const head = ["image", ...columns].map((title, n) =>
      makeElement("th", { scope: "col", class: n ? "number" : "" }, title));
    const label = `Statistics of unit ${state.unit} on every sample image`;
    return makeElement("div", { class: "frame", role: "group", tabindex: 0, "aria-label": label },
      makeElement("table", {}, makeElement("thead", {}, makeElement("tr", {}, ...head)),
        makeElement("tbody", {}, ...rows)));
  }

  // Elements whose content is loaded when they become visible

  const callbacks = new Map(); // of elements that were not visible yet
  const load = (element) => {
    const callback = callbacks.get(element);
    callbacks.delete(element);
    observer.unobserve(element);
    return element.isConnected && callback ? callback().catch((error) => element.append(error.message)) : null;
  };
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting || !target.isConnected) load(target);
  });
  function onVisible(element, callback) {
    callbacks.set(element, callback);
    observer.observe(element);
  }
  window.convatlasDrawAll = () => Promise.all([...callbacks.keys()].map(load)); // for print.js

  Object.assign(convatlas, {
    formatNumber, formatPercent, formatShape, formatCount, getClassName, describeKernel, describeReceptiveField,
    describeValues, renderColorbar, renderNonFiniteLegend, onVisible, loadUnit, UnitPanel,
  });
})();
