"use strict";

/* What the explorer and the comparison page share: network data, addresses, scales and drawing.

   A sprite sheet is a greyscale image of a layer's tiles, one tile per unit, each scaled from the unit's minimum
   (black) to its maximum (white). To bring tiles to a common scale they are drawn on a canvas, and each tile is
   filled over twice: with "multiply" by a gain and with "lighter" by an offset. The result, gain × grey + offset,
   is the value's position on the scale. An SVG filter on the canvas maps grey to colour. Sheets are loaded as scripts,
   because a page opened from a file may not read the pixels of its own images, as saving a figure requires. NaN and infinity are marked on sheets of their own,
   `marks`, which are drawn over the tiles in the colour that the filter turns into NON_FINITE_COLOUR. */

const convatlas = (() => {
  const source = document.currentScript ? document.currentScript.src : "";
  const root = source ? new URL("../", source).href : "";
  const networks = Object.create(null); // network name -> description of the network
  const sheets = Object.create(null); // path -> bytes of a sprite sheet as text
  const unitData = Object.create(null); // network name -> layer slug -> data of the layer's units
  const loading = new Map(); // path -> promise of a script or image

  const toUrl = (path) => root + path.split("/").map(encodeURIComponent).join("/");

  // Data are loaded as scripts, because a page opened from a file can load nothing else.

  function loadOnce(path, load) {
    if (!loading.has(path)) {
      const promise = load(toUrl(path));
      promise.catch(() => loading.delete(path)); // a later call tries again
      loading.set(path, promise);
    }
    return loading.get(path);
  }

  const makeMissingError = (path) => new Error(`${path} is missing or damaged. Rebuild the gallery.`);

  const loadScript = (path) =>
    loadOnce(path, (url) => new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = url;
      element.onload = resolve;
      element.onerror = () => reject(makeMissingError(path));
      document.head.append(element);
    }));

  const loadImage = (path) =>
    loadOnce(path, (url) => new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(makeMissingError(path));
      image.src = url;
    }));

  const SHEET_PATH = /^explorer\/[^/]+\/(maps|filters|deconv)\//; // of the images that are scripts

  const loadSheet = (path) =>
    loadOnce(path, async () => {
      if (!sheets[path]) await loadScript(`${path}.js`);
      if (!sheets[path]) throw makeMissingError(path);
      const image = await createImageBitmap(new Blob([decodeBytes(sheets[path])])).catch(() => null);
      if (!image) throw makeMissingError(path);
      delete sheets[path];
      return image;
    });

  /* Decode bytes from characters of seven bits each, as sheet_scripts.py encodes them. */
  function decodeBytes(text) {
    const bytes = new Uint8Array(Math.floor((text.length * 7) / 8));
    let [rest, nBits, index] = [0, 0, 0];
    for (let n = 0; n < text.length; n++) {
      rest = (rest << 7) | (text.charCodeAt(n) & 127);
      nBits += 7;
      if (nBits < 8) continue;
      nBits -= 8;
      bytes[index++] = rest >> nBits;
      rest &= (1 << nBits) - 1;
    }
    return bytes;
  }

  /* Load the description of a network, unless the page embeds it. */
  async function loadNetwork(name) {
    const path = `explorer/${name}/index.js`;
    if (!networks[name]) await loadScript(path);
    if (!networks[name]) throw makeMissingError(path);
    return networks[name];
  }

  /* Load the data of a layer's units. */
  async function loadUnits(net, layer) {
    const path = `explorer/${net.name}/units/${layer.slug}.js`;
    const getLoaded = () => unitData[net.name] && unitData[net.name][layer.slug];
    if (!getLoaded()) await loadScript(path);
    if (!getLoaded()) throw makeMissingError(path);
    return getLoaded();
  }

  /* Read JSON that is deflated, in characters of seven bits each. */
  async function inflateJson(text) {
    const stream = new Blob([decodeBytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
  }

  // Addresses: the state of a page is in the hash of its address.

  function parseHash(hash) {
    const values = Object.create(null);
    for (const field of hash.replace(/^#/, "").split("&")) {
      const index = field.indexOf("=");
      if (index < 1) continue;
      try {
        values[field.slice(0, index)] = decodeURIComponent(field.slice(index + 1));
      } catch {
        // a truncated field: the other fields are still valid
      }
    }
    return values;
  }

  const encodeValue = (value) => encodeURIComponent(value).replace(/%2F/g, "/").replace(/%3A/g, ":");

  const formatHash = (state) =>
    Object.keys(state)
      .filter((key) => state[key] !== null && state[key] !== undefined)
      .map((key) => `${key}=${encodeValue(state[key])}`)
      .join("&");

  const parseInteger = (text, max, fallback) =>
    (/^\d{1,9}$/.test(text) && text <= max ? Number(text) : fallback);

  /* The state of a network's page from the `values` of parseHash, completed by `defaults`; null where the network
     has no such layer. */
  function parseState(net, values, defaults) {
    const start = values.layer ? values : net.initial;
    const layer = net.layers.find(({ name }) => name === start.layer);
    if (!layer) return null;
    const choose = (key, allowed) => {
      const value = (FORMER_VALUES[key] && FORMER_VALUES[key][values[key]]) || values[key];
      return allowed.includes(value) ? value : defaults[key];
    };
    const images = net.images.map(({ name }) => name);
    return {
      network: net.name,
      layer: layer.name,
      unit: parseInteger(start.unit, layer.units - 1, null),
      image: images.includes(start.image) ? start.image : images[0],
      show: choose("show", getViewKinds(layer)),
      scale: choose("scale", Object.keys(SCALES)),
      colours: choose("colours", Object.keys(COLOURS)),
      overlay: parseInteger(values.overlay, 100, defaults.overlay),
      sort: choose("sort", Object.keys(SORTS)),
      only: choose("only", Object.keys(FILTERS)),
      view: choose("view", VIEWS),
    };
  }

  /* What an address names that the network does not have, as text; "" where it has everything. */
  /* What an image is called, such as "dog, test image 47". */
  const titleImage = (net, name) => net.images.find((image) => image.name === name).title;

  function describeMissing(net, { layer: name, unit, image }) {
    if (!name) return ""; // parseState then ignores the unit and the image, too
    const layer = net.layers.find((candidate) => candidate.name === name);
    if (!layer) return `layer “${name}”`;
    const hasUnit = unit === undefined || parseInteger(unit, layer.units - 1, null) !== null;
    const hasImage = image === undefined || net.images.some((candidate) => candidate.name === image);
    const missing = [hasUnit ? "" : `unit ${unit} of ${name}`, hasImage ? "" : `image “${image}”`];
    return missing.filter(Boolean).join(" and ");
  }

  /* The hash of a state, without its default values, and without the network on the network's own page. */
  const formatState = ({ network: name, ...state }, defaults, includesNetwork) =>
    formatHash({ ...(includesNetwork ? { network: name } : {}),
      ...Object.fromEntries(Object.entries(state).filter(([key, value]) => value !== defaults[key])) });

  let pendingUpdate = 0;

  /* Write an address: at once and as an entry of the browser's history; while the reader steps through units after
     a pause and without an entry, because browsers limit how often an address may change. */
  function updateAddress(formatAddress, isStepping) {
    clearTimeout(pendingUpdate);
    if (isStepping) pendingUpdate = setTimeout(() => location.replace(formatAddress()), 200);
    else location.hash = formatAddress();
  }

  const DEFAULTS = {
    scale: "layer", colours: "auto", show: "maps", overlay: 100, sort: "number", only: "all", view: "grid",
  };
  const VIEWS = ["grid", "unit"]; // all units of a layer, or one of them zoomed
  const FORMER_VALUES = { // in addresses of earlier galleries
    sort: { maximum: "max", zeros: "zero_fraction" }, view: { sheet: "grid" },
  };

  // Order and selection of units, by their statistics over the data set

  const SORTS = {
    number: "index", max: "maximum", mean: "mean", zero_fraction: "zero fraction", selectivity: "class selectivity",
  };
  const FILTERS = { all: "all", alive: "active", dead: "dead" };

  /* Filter units, and sort them in descending order; units without the statistic come last, ties keep their order. */
  function sortUnits({ dataset_pass: statistics }, { sort, only }, units) {
    if (!statistics) return units;
    const dead = new Set(statistics.dead);
    const selected = units.filter((unit) => only === "all" || dead.has(unit) === (only === "dead"));
    if (sort === "number") return selected;
    const values = statistics[sort];
    const getValue = (unit) => (values[unit] === null ? -Infinity : values[unit]);
    return selected.sort((a, b) => (getValue(b) > getValue(a)) - (getValue(b) < getValue(a)));
  }

  // Views: what is shown of a layer's units on an image, and where the tiles are

  const VIEW_KINDS = {
    maps: "Feature maps", filters: "Filters", projections: "Projections (whole map)", peaks: "Projections (peak)",
  };
  const PROJECTION_KEYS = { projections: "map", peaks: "peak" };

  function getViewKinds(layer) {
    const projectionKinds = layer.deconv ? layer.deconv.kinds : [];
    return Object.keys(VIEW_KINDS).filter((kind) =>
      kind === "maps" || (kind === "filters" ? layer.filters : projectionKinds.includes(PROJECTION_KEYS[kind])));
  }

  /* A view: `units` in the order of their tiles, functions `min` and `max` of a tile's index, the `paths` of its
     sprite sheets, and those of their marks. In signed tiles zero is grey 128 of 255, so black is slightly below
     -maxAbs. */
  function getView(net, layer, data, kind, image) {
    const folder = `explorer/${net.name}`;
    const units = [...Array(layer.units).keys()];
    const symmetric = (maxAbs) => ({ min: (i) => (-maxAbs[i] * 128) / 127, max: (i) => maxAbs[i], signed: true });
    if (kind === "filters") {
      const sheets = getSheetPaths(`${folder}/filters/${layer.slug}`, layer.filters, data.filters.non_finite);
      return { ...layer.filters, first: 0, units, ...symmetric(data.filters.max_abs), ...sheets };
    }
    if (kind === "projections" || kind === "peaks") {
      const key = PROJECTION_KEYS[kind];
      const projected = layer.deconv.units[image];
      const first = layer.deconv.kinds.indexOf(key) * projected.length;
      const isMarked = (data.non_finite_deconv || []).includes(image);
      const sheets = getSheetPaths(`${folder}/deconv/${layer.slug}/${image}`, layer.deconv, isMarked);
      return { ...layer.deconv, first, units: projected, ...symmetric(data.deconv[image][key]), ...sheets };
    }
    const { tile_size, columns, rows, signed } = layer;
    const { min, max, non_finite: nonFinite } = data.maps[image];
    const sheets = getSheetPaths(`${folder}/maps/${layer.slug}/${image}`, layer, nonFinite);
    const layout = { tile_size, columns, rows, signed, rgb: false, first: 0, units, ...sheets };
    return { ...layout, min: (i) => min[i], max: (i) => max[i] };
  }

  function getSheetPaths(stem, { sheets = 1, suffix = "png" }, isMarked) {
    const numbers = [...Array(sheets).keys()].map((n) => (n ? `.${n + 1}` : ""));
    const number = (path, end) => numbers.map((text) => `${path}${text}.${end}`);
    return { paths: number(stem, suffix), marks: isMarked ? number(`${stem}.nan`, "png") : [] };
  }

  /* Load the sheets of a view, and after them those of its marks. */
  const loadImages = ({ paths, marks = [] }) =>
    Promise.all([...paths, ...marks].map((path) => (SHEET_PATH.test(path) ? loadSheet : loadImage)(path)));

  // Scales

  const SCALES = { unit: "per unit", layer: "per layer", network: "shared (network)" };
  const COLOURS = { auto: "automatic", grey: "grey", viridis: "viridis", diverging: "diverging" };

  /* The minimum and maximum that a scale covers: of one unit on all images, of all units of the layer on all images,
     or of all layers of the network. Each kind of view has a scale of its own, because projections of peaks are
     much weaker than those of whole maps. */
  function getRange(net, layer, data, kind, scale, unit) {
    if (scale === "network") return net.value_ranges[kind];
    const values = [];
    const collect = (list, index) => {
      for (const value of scale === "unit" ? [list[index]] : list) if (value !== null) values.push(value);
    };
    if (kind === "maps") {
      for (const { min, max } of Object.values(data.maps)) [min, max].forEach((list) => collect(list, unit));
    } else if (kind === "filters") {
      collect(data.filters.max_abs, unit);
    } else {
      for (const image of Object.keys(data.deconv)) {
        const index = layer.deconv.units[image].indexOf(unit);
        if (scale === "layer" || index >= 0) collect(data.deconv[image][PROJECTION_KEYS[kind]], index);
      }
    }
    if (!values.length) return [0, 0]; // all are NaN or infinite
    const max = values.reduce((result, value) => Math.max(result, value), -Infinity);
    if (kind !== "maps") return [-max, max];
    return [values.reduce((result, value) => Math.min(result, value), Infinity), max];
  }

  /* The colour map of a view, "" for a view that is RGB already. */
  function chooseColormap(view, colours) {
    if (view.rgb) return "";
    return colours === "auto" || !COLOURS[colours] ? (view.signed ? "diverging" : "viridis") : colours;
  }

  /* The limits of a scale: symmetric about zero for a diverging colour map, else extended to include zero. */
  function getScaleLimits([min, max], colormap) {
    const maxAbs = Math.max(Math.abs(min), Math.abs(max)) || 1;
    if (colormap === "diverging") return [-maxAbs, maxAbs];
    return min || max ? [Math.min(0, min), Math.max(0, max)] : [0, 1];
  }

  // Drawing

  /* Draw tiles of a view. `indices` are indices into view.units, `boxes` the position [x, y, width, height] of each
     tile in canvas pixels, and `getLimits` gives the limits of a tile's scale by its index. The canvas is to be shown
     in `colormap`. */
  function drawTiles(canvas, view, images, indices, boxes, getLimits, colormap) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    copyTiles(context, view, images, indices, boxes);
    const fills = indices.map((index) => {
      const [min, max] = getLimits(index);
      const toGrey = (value) => Math.round((255 * (value - min)) / (max - min));
      const offset = Math.max(0, toGrey(view.min(index)));
      return { multiply: Math.min(255, toGrey(view.max(index)) - offset), lighter: offset };
    });
    for (const [mode, identity] of [["multiply", 255], ["lighter", 0]]) {
      context.globalCompositeOperation = mode;
      fills.forEach((fill, n) => {
        if (fill[mode] === identity) return;
        context.fillStyle = `rgb(${fill[mode]}, ${fill[mode]}, ${fill[mode]})`;
        context.fillRect(...boxes[n]);
      });
    }
    context.globalCompositeOperation = "source-over";
    if (view.marks && view.marks.length) drawMarks(canvas, view, images, indices, boxes, colormap);
  }

  /* Copy tiles from their sheets to their boxes. */
  function copyTiles(context, view, sheets, indices, boxes) {
    const [height, width] = view.tile_size;
    const tilesPerSheet = view.columns * view.rows;
    indices.forEach((index, n) => {
      const tile = view.first + index;
      const [column, row] = [tile % view.columns, Math.floor((tile % tilesPerSheet) / view.columns)];
      context.imageSmoothingEnabled = boxes[n][2] < width; // only where tiles are reduced
      context.drawImage(
        sheets[Math.floor(tile / tilesPerSheet)], column * width, row * height, width, height, ...boxes[n],
      );
    });
  }

  /* Draw the marks of NaN and infinity over the tiles. */
  function drawMarks(canvas, view, images, indices, boxes, colormap) {
    const overlay = document.createElement("canvas");
    Object.assign(overlay, { width: canvas.width, height: canvas.height });
    const context = overlay.getContext("2d");
    copyTiles(context, view, images.slice(view.paths.length), indices, boxes);
    context.globalCompositeOperation = "source-in";
    context.fillStyle = (canColour && unfilteredColours[colormap]) || `rgb(${NON_FINITE_COLOUR.join(", ")})`;
    context.fillRect(0, 0, canvas.width, canvas.height);
    canvas.getContext("2d").drawImage(overlay, 0, 0);
  }

  const NON_FINITE_COLOUR = [224, 0, 190]; // as in the figures
  const colourTables = {}; // colour map -> 256 colours of six hexadecimal digits
  const unfilteredColours = {}; // colour map -> the colour that its filter turns into NON_FINITE_COLOUR, about

  const canColour = Boolean(window.CSS && CSS.supports("filter", "url(#a)"));

  /* Show a grey canvas in a colour map, by the filters of makeColormapFilters. */
  function applyColormap(canvas, colormap) {
    canvas.style.filter = canColour && colormap && colormap !== "grey" ? `url(#colormap-${colormap})` : "";
  }

  /* Add an SVG filter to the page for each colour map: 256 colours of six hexadecimal digits. */
  function makeColormapFilters(colormaps) {
    Object.assign(colourTables, colormaps);
    const filters = Object.entries(colormaps).map(([name, digits]) => {
      const values = digits.match(/../g).map((pair) => (parseInt(pair, 16) / 255).toFixed(4));
      const functions = ["R", "G", "B"].map((channel, n) => {
        const tableValues = values.filter((_, index) => index % 3 === n).join(" ");
        return makeSvgElement(`feFunc${channel}`, { type: "table", tableValues });
      });
      unfilteredColours[name] = `rgb(${NON_FINITE_COLOUR.map((target, channel) =>
        findNearest(values.filter((_, index) => index % 3 === channel), target / 255)).join(", ")})`;
      const transfer = makeSvgElement("feComponentTransfer", {}, ...functions);
      const region = { x: "0", y: "0", width: "100%", height: "100%" };
      const attributes = { id: `colormap-${name}`, "color-interpolation-filters": "sRGB", ...region };
      return makeSvgElement("filter", attributes, transfer);
    });
    document.body.append(makeSvgElement("svg", { class: "colormap-filters", "aria-hidden": "true" }, ...filters));
  }

  const findNearest = (values, target) =>
    values.reduce((best, value, n) => (Math.abs(value - target) < Math.abs(values[best] - target) ? n : best), 0);

  // Data that the pages and the data scripts provide

  const registerNetwork = (network) => { networks[network.name] = network; };
  const registerSheet = (path, text) => { sheets[path] = text; };

  function registerUnits(name, slug, text) {
    networkUnits(name)[slug] = inflateJson(text);
  }
  const networkUnits = (name) => (unitData[name] = unitData[name] || Object.create(null));

  /* Read the JSON that a page embeds, and register its network. */
  function readPageData(id) {
    const data = JSON.parse(document.getElementById(id).textContent);
    if (data.network) registerNetwork(data.network);
    return data;
  }

  return {
    toUrl, loadScript, loadNetwork, loadUnits, loadImages, inflateJson, readPageData, registerNetwork, registerSheet, registerUnits,
    parseHash, formatHash, parseState, formatState, describeMissing, titleImage, updateAddress, DEFAULTS,
    getViewKinds, getView, getRange, getScaleLimits, chooseColormap, sortUnits,
    copyTiles, drawTiles, applyColormap, makeColormapFilters, canColour, colourTables, NON_FINITE_COLOUR,
    VIEW_KINDS, SCALES, COLOURS, SORTS, FILTERS,
  };
})();
