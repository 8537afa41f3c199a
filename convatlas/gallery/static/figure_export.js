"use strict";

/* Saving what the explorer shows: the map of a unit, or the sheet of a layer's units, as a figure; the values of a map
   as CSV or .npy; and its caption with citation and settings. */

(() => {
  const MARGIN = 24; // points
  const SHEET_WIDTH = 1530; // pixels of the figure that the tiles of a sheet fill
  const MAP_SIZE = 960; // pixels of the figure that the longer side of a map fills
  const MIN_STRIP_HEIGHT = 36; // pixels of a row of values
  const GAP = 6; // pixels of the figure between tiles
  const LABEL_SIZE = 7; // points
  const TEXT_SIZE = 8.5;
  const FORMATS = { png: "PNG", svg: "SVG", pdf: "PDF" };
  const VALUE_FORMATS = { csv: "CSV", npy: "NPY" };

  // What is shown

  /* Load what the explorer shows of a layer in a kind of view. */
  async function loadShown(state, kind) {
    const loaded = await convatlas.loadUnit(state);
    const view = convatlas.getView(loaded.net, loaded.layer, loaded.data, kind, state.image);
    const images = await convatlas.loadImages(view);
    const colormap = convatlas.chooseColormap(view, state.colours);
    const getLimits = (unit) => convatlas.getScaleLimits(
      convatlas.getRange(loaded.net, loaded.layer, loaded.data, kind, state.scale, unit), colormap);
    return { ...loaded, state, kind, view, images, colormap, getLimits };
  }

  const countSideSteps = ({ levels }) => Math.max(1, Math.floor(levels / 4)); // as sprites.quantize_signed

  /* The value of a grey of a tile from `min` to `max`: one of `levels` of a map, or of those on either side of zero. */
  function toValue(grey, { net, kind }, min, max) {
    if (kind === "maps") return min + ((max - min) * Math.round((grey * (net.levels - 1)) / 255)) / (net.levels - 1);
    const nSteps = countSideSteps(net);
    return (max * Math.round(((grey - 128) * nSteps) / 127)) / nSteps;
  }

  /* The values of a unit's tile, row by row, of each channel of an RGB view; NaN where they are NaN or infinite. */
  function readValues(shown, unit) {
    const { view, images } = shown;
    const [height, width] = view.tile_size;
    const index = view.units.indexOf(unit);
    const read = (sheets) => {
      const context = makeElement("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
      convatlas.copyTiles(context, view, sheets, [index], [[0, 0, width, height]]);
      return context.getImageData(0, 0, width, height).data;
    };
    const pixels = read(images);
    const marks = view.marks.length ? read(images.slice(view.paths.length)) : null;
    const channels = view.rgb ? 3 : 1;
    const [min, max] = [view.min(index), view.max(index)];
    return Float32Array.from({ length: width * height * channels }, (_, n) => {
      const pixel = 4 * Math.floor(n / channels);
      return marks && marks[pixel + 3] ? NaN : toValue(pixels[pixel + (n % channels)], shown, min, max);
    });
  }

  /* The colour of a value at a position of a scale, 0 to 1. */
  function getColour(colormap, position) {
    const grey = Math.round(255 * Math.max(0, Math.min(1, position)));
    const digits = convatlas.colourTables[colormap];
    if (!digits) return [grey, grey, grey];
    return [0, 2, 4].map((offset) => parseInt(digits.slice(6 * grey + offset, 6 * grey + offset + 2), 16));
  }

  /* A unit's tile in its colours, a pixel per value. */
  function paintTile(shown, unit) {
    const [height, width] = shown.view.tile_size;
    const values = readValues(shown, unit);
    const [low, high] = shown.view.rgb ? getTileLimits(shown, unit) : shown.getLimits(unit);
    const toPosition = (value) => (value - low) / (high - low);
    const canvas = makeElement("canvas", { width, height });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let n = 0; n < width * height; n++) {
      const own = shown.view.rgb ? [...values.slice(3 * n, 3 * n + 3)] : [values[n]];
      const colour = own.some(Number.isNaN) ? convatlas.NON_FINITE_COLOUR
        : own.length === 3 ? own.map((value) => getColour("grey", toPosition(value))[0])
          : getColour(shown.colormap, toPosition(own[0]));
      image.data.set([...colour, 255], 4 * n);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /* The ends of an RGB tile, which has a scale of its own. */
  function getTileLimits({ view }, unit) {
    const index = view.units.indexOf(unit);
    return [view.min(index), view.max(index)];
  }

  // Texts

  const formatLimits = (shown, units) => {
    const isPerUnit = shown.view.rgb || (shown.state.scale === "unit" && units.length > 1);
    if (!isPerUnit) return shown.getLimits(units[0]).map(convatlas.formatNumber);
    return shown.view.signed ? ["−max |x| of each unit", "max |x| of each unit"]
      : ["min (or 0) of each unit", "max of each unit"];
  };

  function describeUnits({ net, layer, state, kind }, units) {
    const className = units.length === 1 && convatlas.getClassName(net, layer, units[0]);
    const subject = units.length > 1 ? `${layer.name}, ${units.length} units`
      : `${layer.name}, unit ${units[0]}${className ? ` (${className})` : ""}`;
    return kind === "filters" ? `${net.name}, ${subject}` : `${net.name}, ${subject}, on ${convatlas.titleImage(net, state.image)}`;
  }

  /* The caption: what, of which layer, on which image, on which scale. */
  function describeFigure(shown, units) {
    const { net, layer, state, kind, view, colormap } = shown;
    const what = units.length > 1 ? convatlas.VIEW_KINDS[kind] : convatlas.VIEW_KINDS[kind].replace(/s( \(|$)/, "$1");
    const { label } = net.images.find(({ name }) => name === state.image);
    const image = kind === "filters" ? "" : ` on ${label}`;
    const scale = `Scale ${convatlas.SCALES[view.rgb ? "unit" : state.scale]}, ${formatLimits(shown, units).join(" to ")}`;
    const colours = view.rgb ? "RGB, grey is zero" : `${convatlas.COLOURS[colormap] || colormap} colours`;
    const size = view.tile_size.join("\u00a0×\u00a0");
    return `${net.name}, ${layer.name}: ${what.toLowerCase()} of ${units.length > 1 ? `${units.length} units` : `unit ${units[0]}`}` +
      `${image}, ${size}. ${scale}, ${colours}. ${describeSteps(shown)}`;
  }

  /* How values are rounded: sheets hold few levels. */
  function describeSteps({ net, kind }) {
    if (kind === "maps") return `Values are rounded to ${net.levels} levels from each unit's minimum to its maximum.`;
    return `Values are rounded to ${countSideSteps(net)} levels on either side of zero.`;
  }

  /* The line of Python that loads the exact values. */
  function formatLoadingCode({ net, layer, state, kind, view }, unit) {
    const quote = (text) => JSON.stringify(text);
    const results = `convatlas.Results(${quote(`results/${net.name}`)})`;
    if (kind === "filters") {
      const index = layer.type.includes("Transpose") ? `:, ${unit}` : unit;
      return `${results}.filters[${quote(layer.module || layer.name)}][${index}]`;
    }
    if (kind === "maps") {
      const { shape } = layer; // of volumes the central slice is shown
      const index = shape.length === 4 ? `[${unit}, ${Math.floor(shape[1] / 2)}]` : shape.length ? `[${unit}]` : "";
      return `${results}.activations(${quote(state.image)})[${quote(layer.name)}]${index}`;
    }
    const key = kind === "peaks" ? `${layer.name}@peak` : layer.name;
    const index = view.units.indexOf(unit); // some units are not projected
    const projections = `${results}.displayed_projections(${quote(state.image)})[${quote(key)}]`;
    return index < 0 ? projections : `${projections}[${index}]`;
  }

  const getRunId = () => document.querySelector("[data-run]").dataset.run;

  function formatSettings({ net, layer, state, kind }, unit) {
    const { scale, colours } = state;
    const settings = { network: net.name, layer: layer.name, unit, image: state.image, show: kind, scale, colours,
      levels: net.levels };
    return Object.entries(settings).map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join("\n");
  }

  // Figures

  /* The layout of tiles in pixels of the figure: columns, the factor by which a tile is enlarged, its size. */
  function layOutTiles([height, width], count) {
    const columns = Math.min(count, Math.ceil(Math.sqrt((count * Math.max(height, width / 16) * 1.4) / width)));
    const room = count > 1 ? Math.floor(SHEET_WIDTH / columns) - GAP : MAP_SIZE;
    const factor = Math.max(1, Math.floor(room / (count > 1 ? width : Math.max(height, width))));
    const tile = [width * factor, height === 1 && width > 1 ? Math.max(factor, MIN_STRIP_HEIGHT) : height * factor];
    const isNumbered = tile[0] >= 4 * LABEL_SIZE && count > 1;
    const label = isNumbered ? convatlas.PIXELS_PER_POINT * (LABEL_SIZE + 3) : 0;
    return { columns, tile, isNumbered, label, pitch: [tile[0] + GAP, tile[1] + GAP + label] };
  }

  /* The tiles as one picture, and their numbers: of each tile, or of the first tile of each row. */
  function composeTiles(shown, units, left, top) {
    const { columns, tile, isNumbered, label, pitch } = layOutTiles(shown.view.tile_size, units.length);
    const rows = Math.ceil(units.length / columns);
    const canvas = makeElement("canvas", { width: columns * pitch[0] - GAP, height: rows * pitch[1] - GAP });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    const items = [];
    const indent = units.length > 1 && !isNumbered ? 24 : 0;
    units.forEach((unit, n) => {
      const [x, y] = [(n % columns) * pitch[0], Math.floor(n / columns) * pitch[1]];
      context.drawImage(paintTile(shown, unit), x, y + label, ...tile);
      const position = { size: LABEL_SIZE, text: String(unit) };
      const toPoints = (pixels) => pixels / convatlas.PIXELS_PER_POINT;
      if (isNumbered) items.push({ ...position, x: left + toPoints(x), y: top + toPoints(y) + LABEL_SIZE });
      else if (indent && n % columns === 0) {
        items.push({ ...position, x: left + indent - 4, y: top + toPoints(y) + LABEL_SIZE, anchor: "end" });
      }
    });
    const size = { width: canvas.width / convatlas.PIXELS_PER_POINT, height: canvas.height / convatlas.PIXELS_PER_POINT };
    return [{ canvas, x: left + indent, y: top, ...size }, ...items];
  }

  function composeColorbar(shown, units, left, top) {
    const canvas = makeElement("canvas", { width: 256, height: 1 });
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 1);
    for (let n = 0; n < 256; n++) image.data.set([...getColour(shown.colormap || "grey", n / 255), 255], 4 * n);
    context.putImageData(image, 0, 0);
    const [width, limits] = [180, formatLimits(shown, units)];
    const text = { y: top + 18, size: LABEL_SIZE };
    const [low, high] = shown.getLimits(units[0]);
    const zero = -low / (high - low);
    const hasZero = !shown.view.rgb && shown.state.scale !== "unit" && zero > 0.15 && zero < 0.85;
    return [{ canvas, x: left, y: top, width, height: 9 }, { ...text, x: left, text: limits[0] },
      ...(hasZero ? [{ ...text, x: left + zero * width, text: "0", anchor: "middle" }] : []),
      { ...text, x: left + width, text: limits[1], anchor: "end" }];
  }

  /* A figure: title, tiles, colour bar and caption. */
  function composeFigure(shown, units) {
    const title = describeUnits(shown, units);
    const tiles = composeTiles(shown, units, MARGIN, MARGIN + 14);
    const width = Math.max(300, tiles[0].x + tiles[0].width - MARGIN);
    const barTop = MARGIN + 14 + tiles[0].height + 12;
    const caption = `${describeFigure(shown, units)} Run ${getRunId()}.`;
    const lines = convatlas.wrapText(caption, TEXT_SIZE, width).map((text, n) =>
      ({ text, x: MARGIN, y: barTop + 38 + n * 11, size: TEXT_SIZE }));
    const items = [{ text: title, x: MARGIN, y: MARGIN, size: 11, bold: true }, ...tiles,
      ...composeColorbar(shown, units, MARGIN, barTop), ...lines];
    return { title, width: width + 2 * MARGIN, height: lines.at(-1).y + MARGIN, items };
  }

  // Values

  function toCsv(shown, unit) {
    const { view } = shown;
    const values = readValues(shown, unit);
    const rowLength = view.tile_size[1] * (view.rgb ? 3 : 1);
    const rows = [...Array(view.tile_size[0]).keys()].map((row) =>
      [...values.subarray(row * rowLength, (row + 1) * rowLength)].map((value) => String(value)).join(","));
    return new Blob([`# ${describeFigure(shown, [unit])}\n`, `${rows.join("\n")}\n`], { type: "text/csv" });
  }

  /* The NumPy format, version 1.0: a header of a multiple of 64 bytes, then float32 in C order. */
  function toNpy(shown, unit) {
    const shape = [...shown.view.tile_size, ...(shown.view.rgb ? [3] : [])];
    const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
    const length = 64 * Math.ceil((header.length + 11) / 64) - 10;
    const start = new Uint8Array([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, length % 256, length >> 8]);
    return new Blob([start, `${header.padEnd(length - 1)}\n`, readValues(shown, unit)]);
  }

  // Controls

  function download(blob, name) {
    const link = makeElement("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  function nameFile({ net, layer, state, kind }, units, format) {
    const parts = [net.name, layer.slug, units.length > 1 ? kind : `unit-${units[0]}`, kind === "filters" ? "" : state.image];
    return `${parts.filter(Boolean).join("-")}.${format}`;
  }

  async function save(shown, units, format) {
    await convatlas.loadScript("static/figure_drawing.js"); // only where a figure is saved
    const write = convatlas.figureWriters[format];
    const blob = write ? await write(composeFigure(shown, units))
      : (format === "csv" ? toCsv : toNpy)(shown, units[0]);
    download(blob, nameFile(shown, units, format));
  }

  const formatCopy = (shown, units) => [
    describeFigure(shown, units),
    `run ${getRunId()}\n${formatSettings(shown, units.length > 1 ? undefined : units[0])}`,
    formatLoadingCode(shown, units[0]), getAddress(location.hash), getCitation(),
  ].join("\n\n");

  /* The buttons that save what `getShown` returns, [state, kind of view, units]: a figure; of one unit its values. */
  function renderSaveButtons(subject, getShown, hasValues) {
    const status = makeElement("span", { role: "status", class: "copy-status" });
    const run = async (act) => {
      status.replaceChildren();
      const [state, kind, units] = getShown();
      try {
        await act(await loadShown(state, kind), units);
      } catch (error) {
        status.replaceChildren(error.message);
      }
    };
    const makeButton = (text, label, act) =>
      makeElement("button", { type: "button", "aria-label": label, click: () => run(act) }, text);
    const formats = hasValues ? { ...FORMATS, ...VALUE_FORMATS } : FORMATS;
    const buttons = Object.entries(formats).map(([format, title]) =>
      makeButton(title, `Save ${subject} as ${title}`, (shown, units) => save(shown, units, format)));
    const copy = makeButton("Copy caption, citation and settings", `Copy caption, citation and settings of ${subject}`,
      (shown, units) => copyText(formatCopy(shown, units), status));
    return makeElement("div", { class: "save", role: "group", "aria-label": `Save ${subject}` },
      makeElement("span", { class: "title" }, `Save ${subject}`), ...buttons, copy, status);
  }

  Object.assign(convatlas, { formatLoadingCode, renderSaveButtons });
})();
