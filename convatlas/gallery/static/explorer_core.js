"use strict";

/* What the explorer and the comparison share: the data of networks, addresses, scales and painting.

   A sprite is a grey picture of a layer's tiles, a tile a unit, black at the unit's lowest value and white
   at its highest. To bring tiles to one scale they are drawn on a canvas, and each is filled over twice:
   with "multiply" by a gain and with "lighter" by an offset, so that what shows is gain × grey + offset, the
   value's place on the scale. An SVG filter on the canvas turns grey into colour. No pixel is ever read,
   for a page opened from a file may not read its own pictures. */

const convatlas = (() => {
  const source = document.currentScript ? document.currentScript.src : "";
  const root = source ? new URL("../", source).href : "";
  const networks = Object.create(null); // name -> what is told of a network
  const numbers = Object.create(null); // name -> slug -> the numbers of a layer's units
  const loading = new Map(); // path -> promise of a script or picture

  const place = (path) => root + path.split("/").map(encodeURIComponent).join("/");

  // Data, which come as scripts: a page opened from a file may load those, and nothing else

  function once(path, start) {
    if (!loading.has(path)) {
      const promise = start(place(path));
      promise.catch(() => loading.delete(path)); // so that it can be asked for again
      loading.set(path, promise);
    }
    return loading.get(path);
  }

  const missing = (path) =>
    new Error(`${path} is missing from this site, or damaged. Build the gallery again.`);

  const script = (path) =>
    once(path, (address) => new Promise((done, fail) => {
      const element = document.createElement("script");
      element.src = address;
      element.onload = done;
      element.onerror = () => fail(missing(path));
      document.head.append(element);
    }));

  const picture = (path) =>
    once(path, (address) => new Promise((done, fail) => {
      const image = new Image();
      image.onload = () => done(image);
      image.onerror = () => fail(missing(path));
      image.src = address;
    }));

  /* What is told of a network, and what is told of a layer's units: given at once where the page has it. */
  async function network(name) {
    const path = `atlas/${name}/index.js`;
    if (!networks[name]) await script(path);
    if (!networks[name]) throw missing(path);
    return networks[name];
  }

  async function units(net, layer) {
    const path = `atlas/${net.name}/units/${layer.slug}.js`;
    const there = () => numbers[net.name] && numbers[net.name][layer.slug];
    if (!there()) await script(path);
    if (!there()) throw missing(path);
    return there();
  }

  // Addresses: every state of a page is in the part after its #

  function read(hash) {
    const found = Object.create(null);
    for (const part of hash.replace(/^#/, "").split("&")) {
      const at = part.indexOf("=");
      if (at < 1) continue;
      try {
        found[part.slice(0, at)] = decodeURIComponent(part.slice(at + 1));
      } catch {
        // a part that somebody cut off: the rest may still be read
      }
    }
    return found;
  }

  const written = (value) => encodeURIComponent(value).replace(/%2F/g, "/").replace(/%3A/g, ":");

  const write = (state) =>
    Object.keys(state)
      .filter((key) => state[key] !== null && state[key] !== undefined)
      .map((key) => `${key}=${written(state[key])}`)
      .join("&");

  const whole = (value, most, instead) =>
    (/^\d{1,9}$/.test(value) && value <= most ? Number(value) : instead);

  /* What a network's page is asked to show, by what `read` found; null where there is no such layer. `usual`
     has what is meant where nothing is said. */
  function understood(net, found, usual) {
    const start = found.layer ? found : net.opening;
    const layer = net.layers.find(({ name }) => name === start.layer);
    if (!layer) return null;
    const among = (key, allowed) => (allowed.includes(found[key]) ? found[key] : usual[key]);
    const images = net.images.map(({ name }) => name);
    return {
      network: net.name,
      layer: layer.name,
      unit: whole(start.unit, layer.units - 1, null),
      image: images.includes(start.image) ? start.image : images[0],
      show: among("show", kinds(layer)),
      scale: among("scale", Object.keys(SCALES)),
      colours: among("colours", Object.keys(COLOURS)),
      overlay: whole(found.overlay, 100, usual.overlay),
      sort: among("sort", Object.keys(SORTS)),
      only: among("only", Object.keys(ONLY)),
      view: among("view", VIEWS),
    };
  }

  /* What is asked for that a network does not have, in words; "" where all is there. */
  function absent(net, { layer: name, unit, image }) {
    if (!name) return ""; // then the rest is not looked at either
    const layer = net.layers.find((one) => one.name === name);
    if (!layer) return `no layer “${name}”`;
    const isUnit = unit === undefined || whole(unit, layer.units - 1, null) !== null;
    const isImage = image === undefined || net.images.some((one) => one.name === image);
    const words = [isUnit ? "" : `no unit ${unit} of ${name}`, isImage ? "" : `no image “${image}”`];
    return words.filter(Boolean).join(" and ");
  }

  /* The address of a state, without what is as usual, and without its network on the network's own page. */
  const address = ({ network: name, ...rest }, usual, isElsewhere) =>
    write({ ...(isElsewhere ? { network: name } : {}),
      ...Object.fromEntries(Object.entries(rest).filter(([key, value]) => value !== usual[key])) });

  const USUAL = {
    scale: "layer", colours: "auto", show: "maps", overlay: 100, sort: "number", only: "all", view: "sheet",
  };
  const VIEWS = ["sheet", "unit"]; // the units of a layer, or over them one of them enlarged

  // Orders of units, by what the data set says of them

  const SORTS = {
    number: "by number", maximum: "greatest value first", mean: "greatest mean first",
    zeros: "most zeros first", selectivity: "most selective first",
  };
  const ONLY = { all: "all", alive: "alive over the set", dead: "dead over the set" };

  /* Those of some units that are asked for, in the order that is asked for: what has no number last, equal
     ones as they came. */
  function ordered({ set }, { sort, only }, units) {
    if (!set) return units;
    const dead = new Set(set.dead);
    const some = units.filter((unit) => only === "all" || dead.has(unit) === (only === "dead"));
    if (sort === "number") return some;
    const worth = (unit) => (set[sort][unit] === null ? -Infinity : set[sort][unit]);
    return some.sort((a, b) => (worth(b) > worth(a)) - (worth(b) < worth(a)));
  }

  // Views: what can be seen of a layer's units on an image, and where its tiles are

  const KINDS = { maps: "Maps", filters: "Filters", projections: "Projections", peaks: "Peak projections" };
  const KEYS = { projections: "map", peaks: "peak" }; // of the deconvnet's tiles

  function kinds(layer) {
    const projected = layer.deconv ? layer.deconv.kinds : [];
    return Object.keys(KINDS).filter(
      (kind) => kind === "maps" || (kind === "filters" ? layer.filters : projected.includes(KEYS[kind])),
    );
  }

  /* A view: `units` in the order of their tiles, `low` and `high` of the i-th, and where the pictures are.
     Signed tiles have zero at grey 128 of 255, so that their black lies a step beyond -most. */
  function view(net, layer, told, kind, image) {
    const folder = `atlas/${net.name}`;
    const all = [...Array(layer.units).keys()];
    const about = (most) => ({ low: (i) => (-most[i] * 128) / 127, high: (i) => most[i], signed: true });
    if (kind === "filters") {
      const at = { ...layer.filters, first: 0, units: all, ...about(told.filters.most) };
      return { ...at, paths: sheets(`${folder}/filters/${layer.slug}`, layer.filters) };
    }
    if (kind === "projections" || kind === "peaks") {
      const listed = layer.deconv.units[image];
      const first = layer.deconv.kinds.indexOf(KEYS[kind]) * listed.length;
      const at = { ...layer.deconv, first, units: listed, ...about(told.deconv[image][KEYS[kind]]) };
      return { ...at, paths: sheets(`${folder}/deconv/${layer.slug}/${image}`, layer.deconv) };
    }
    const { tile, columns, rows, signed } = layer;
    const { low, high } = told.maps[image];
    const paths = sheets(`${folder}/maps/${layer.slug}/${image}`, layer);
    const at = { tile, columns, rows, signed, colour: false, first: 0, units: all, paths };
    return { ...at, low: (i) => low[i], high: (i) => high[i] };
  }

  const sheets = (stem, { sheets = 1, suffix = "png" }) =>
    [...Array(sheets).keys()].map((n) => (n ? `${stem}.${n + 1}.${suffix}` : `${stem}.${suffix}`));

  const pictures = (seen) => Promise.all(seen.paths.map(picture));

  // Scales

  const SCALES = { unit: "per unit", layer: "per layer", network: "whole network" };
  const COLOURS = { auto: "by the data", grey: "grey", viridis: "viridis", diverging: "diverging" };

  /* The lowest and highest value that a scale has to hold: of one unit on every image, of all units of the
     layer on every image, or of all layers of the network. Of one kind alone: beside the projections of whole
     maps, those of peaks would be all but white. */
  function span(net, layer, told, kind, scale, unit) {
    if (scale === "network") return net.range[kind];
    const values = [];
    const take = (list, at) => {
      for (const value of scale === "unit" ? [list[at]] : list) values.push(value);
    };
    if (kind === "maps") {
      for (const { low, high } of Object.values(told.maps)) [low, high].forEach((list) => take(list, unit));
    } else if (kind === "filters") {
      take(told.filters.most, unit);
    } else {
      for (const image of Object.keys(told.deconv)) {
        const at = layer.deconv.units[image].indexOf(unit);
        if (scale === "layer" || at >= 0) take(told.deconv[image][KEYS[kind]], at);
      }
    }
    const high = values.reduce((most, value) => Math.max(most, value), -Infinity);
    if (kind !== "maps") return [-high, high];
    return [values.reduce((least, value) => Math.min(least, value), Infinity), high];
  }

  /* The table of colours that shows a view, "" for a view that is in colour already. */
  function table(seen, colours) {
    if (seen.colour) return "";
    return colours === "auto" || !COLOURS[colours] ? (seen.signed ? "diverging" : "viridis") : colours;
  }

  /* The ends of a scale: as far below zero as above where colours diverge, else from or to zero. */
  function ends([low, high], colours) {
    const most = Math.max(Math.abs(low), Math.abs(high)) || 1;
    if (colours === "diverging") return [-most, most];
    return low || high ? [Math.min(0, low), Math.max(0, high)] : [0, 1];
  }

  // Painting

  /* Paint tiles of a view: `which` are places in view.units, `boxes` where each goes, [x, y, w, h] in the
     canvas's pixels, `scale` gives the ends of the scale of the i-th. */
  function paint(canvas, seen, images, which, boxes, scale) {
    const brush = canvas.getContext("2d");
    const [height, width] = seen.tile;
    const each = seen.columns * seen.rows;
    brush.clearRect(0, 0, canvas.width, canvas.height);
    which.forEach((i, n) => {
      const tile = seen.first + i;
      const [column, row] = [tile % seen.columns, Math.floor((tile % each) / seen.columns)];
      brush.imageSmoothingEnabled = boxes[n][2] < width; // values are never blurred where they are enlarged
      brush.drawImage(
        images[Math.floor(tile / each)], column * width, row * height, width, height, ...boxes[n],
      );
    });
    const lights = which.map((i) => {
      const [low, high] = scale(i);
      const place = (value) => Math.round((255 * (value - low)) / (high - low));
      const offset = Math.max(0, place(seen.low(i)));
      return { multiply: Math.min(255, place(seen.high(i)) - offset), lighter: offset };
    });
    for (const [mode, nothing] of [["multiply", 255], ["lighter", 0]]) {
      brush.globalCompositeOperation = mode;
      lights.forEach((light, n) => {
        if (light[mode] === nothing) return;
        brush.fillStyle = `rgb(${light[mode]}, ${light[mode]}, ${light[mode]})`;
        brush.fillRect(...boxes[n]);
      });
    }
    brush.globalCompositeOperation = "source-over";
  }

  const canColour = Boolean(window.CSS && CSS.supports("filter", "url(#a)"));

  /* Colour a canvas by a table; the filters of the tables are put into the page by `tables`. */
  function tint(canvas, colours) {
    canvas.style.filter = canColour && colours && colours !== "grey" ? `url(#colours-${colours})` : "";
  }

  /* Make the filters: `given` has for each table its 256 colours, six hexadecimal digits each. */
  function tables(given) {
    const svg = (tag, attributes, ...within) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
      element.append(...within);
      return element;
    };
    const filters = Object.entries(given).map(([name, digits]) => {
      const colours = digits.match(/../g).map((pair) => (parseInt(pair, 16) / 255).toFixed(4));
      const functions = ["R", "G", "B"].map((channel, n) => {
        const values = colours.filter((_, at) => at % 3 === n).join(" ");
        return svg(`feFunc${channel}`, { type: "table", tableValues: values });
      });
      const transfer = svg("feComponentTransfer", {}, ...functions);
      const whole = { x: "0", y: "0", width: "100%", height: "100%" };
      const id = { id: `colours-${name}`, "color-interpolation-filters": "sRGB" };
      return svg("filter", { ...id, ...whole }, transfer);
    });
    document.body.append(svg("svg", { class: "tables", "aria-hidden": "true" }, ...filters));
  }

  /* Add what a page was given as JSON within itself. */
  function embedded(id) {
    const given = JSON.parse(document.getElementById(id).textContent);
    if (given.network) networks[given.network.name] = given.network;
    return given;
  }

  return {
    place, network, pictures, embedded, read, write, understood, absent, address, USUAL, kinds, view, span, table,
    ends, paint, tint, tables, canColour, ordered, KINDS, SCALES, COLOURS, SORTS, ONLY,
    numbersOf: units,
    add: (given) => { networks[given.name] = given; },
    units: (name, slug, given) => { (numbers[name] = numbers[name] || Object.create(null))[slug] = given; },
  };
})();
