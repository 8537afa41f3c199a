"use strict";

/* The explorer of one network: its layers beside a sheet of all units of one of them, and one unit enlarged.
   What it shows is in the address, `#layer=layer1.0.conv2&unit=17&image=cat`, so that a link shows just what
   its sender saw, and the browser's own buttons go back and forth. */

(() => {
  const { make, number, count, times } = convatlas;
  const section = document.getElementById("explorer");
  const given = convatlas.embedded("explorer-data");
  const net = given.network;
  const part = (name) => section.querySelector(`[data-part="${name}"]`);
  const byName = new Map(net.layers.map((layer) => [layer.name, layer]));
  const USUAL = { ...convatlas.USUAL, scale: given.scale };
  const narrow = matchMedia("(max-width: 60rem)");

  let state = null;
  let turn = 0; // of drawing: where a later one has begun, an earlier ends
  let waiting = 0;
  let told = {}; // the numbers of the layer that is shown

  // The address

  function understood(hash) {
    const found = convatlas.read(hash);
    const there = convatlas.understood(net, found, USUAL);
    const absent = convatlas.absent(net, found);
    if (absent) trouble(`There is ${absent} here. The explorer shows another.`);
    return there || convatlas.understood(net, {}, USUAL);
  }

  /* Go to another state. A reader's choice can be taken back with the browser's button; a step along the
     units cannot, or thirty steps would want thirty presses. While somebody steps the address waits, for
     browsers allow so many changes of it a second. */
  function go(change, stepping = false) {
    state = { ...state, ...change };
    if (state.unit >= byName.get(state.layer).units) state.unit = null; // of the layer before
    clearTimeout(waiting);
    if (stepping) waiting = setTimeout(() => location.replace(addressed()), 200);
    else location.hash = addressed();
    trouble("");
    draw();
  }

  const addressed = () => `#${convatlas.address(state, USUAL)}`;

  const choose = (change, stepping) => ("step" in change ? step(change.step) : go(change, stepping));

  /* To the unit before or after, of those and in the order that the sheet has of maps. */
  const step = (by) => {
    const all = [...Array(byName.get(state.layer).units).keys()];
    const units = convatlas.ordered(told, state, all);
    const at = units.indexOf(state.unit);
    if (units.length) go({ unit: units[at < 0 ? 0 : (at + by + units.length) % units.length] }, true);
  };

  // What is drawn

  async function draw() {
    const mine = ++turn;
    place();
    section.setAttribute("aria-busy", "true");
    try {
      const seen = await convatlas.look(state);
      if (mine !== turn) return;
      told = seen.told;
      if (state.unit === null) state.unit = telling(seen.told, state);
      const view = convatlas.view(net, seen.layer, seen.told, state.show, state.image);
      const images = await convatlas.pictures(view);
      if (mine !== turn) return;
      controls(seen.layer, Boolean(told.set));
      describe(seen);
      sheetOf(seen, view, images);
      say(seen);
      await panel.show(state, room());
    } catch (error) {
      if (mine === turn) trouble(error.message);
    } finally {
      if (mine === turn) section.removeAttribute("aria-busy");
    }
  }

  /* The unit to begin with in a layer: the first of those asked for, else the likest to a classical feature,
     or the one of widest range. */
  function telling({ like, maps, set }, { image, sort, only }) {
    const { low, high } = maps[image];
    if (sort !== USUAL.sort || only !== USUAL.only) {
      const [first] = convatlas.ordered({ set }, { sort, only }, [...low.keys()]);
      if (first !== undefined) return first;
    }
    const worth = low.map((value, unit) => high[unit] - value);
    const likeness = (like || []).map((match) => (match ? Math.abs(match.r) : 0));
    const by = likeness.some(Boolean) ? likeness : worth;
    return by.indexOf(by.reduce((most, value) => Math.max(most, value), 0));
  }

  function trouble(message) {
    const note = part("trouble");
    note.textContent = message;
    note.hidden = !message;
  }

  function controls(layer, isFollowed) {
    for (const key of ["scale", "colours", "sort", "only"]) part(key).value = state[key];
    part("orders").hidden = !isFollowed;
    for (const choice of part("images").querySelectorAll("input, select")) {
      if (choice.type === "radio") choice.checked = choice.value === state.image;
      else choice.value = state.image;
    }
    const kinds = convatlas.kinds(layer);
    part("kinds").hidden = kinds.length === 1;
    for (const choice of part("kinds").querySelectorAll("input")) {
      choice.checked = choice.value === state.show;
      choice.parentNode.hidden = !kinds.includes(choice.value);
    }
    list.mark(layer.name);
    part("chosen").textContent = layer.name;
    part("context").textContent = `${layer.name} on ${state.image}`;
    part("unit-number").max = layer.units - 1;
    part("unit-number").value = state.unit;
    part("units").textContent = `of ${layer.units.toLocaleString("en")}`;
    const shown = { ...state, view: USUAL.view };
    const elsewhere = (change) => convatlas.address({ ...shown, ...change }, convatlas.USUAL, true);
    const both = convatlas.write({ a: elsewhere({}), b: elsewhere(neighbour(layer)) });
    part("compare").href = `${convatlas.place("compare.html")}#${both}`;
  }

  /* What a unit is set beside at first: itself on the next image, or the next unit. */
  function neighbour(layer) {
    const at = net.images.findIndex(({ name }) => name === state.image);
    if (net.images.length > 1) return { image: net.images[(at + 1) % net.images.length].name };
    return { unit: (state.unit + 1) % layer.units };
  }

  function describe({ layer, told }) {
    part("name").textContent = layer.name;
    const kernel = layer.kernel ? ` ${times(layer.kernel)}` : "";
    const [low, high] = convatlas.span(net, layer, told, "maps", "layer", 0);
    const maps = Object.values(told.maps);
    const units = [...Array(layer.units).keys()];
    const silent = layer.negative ? 0 : units.filter((one) => maps.every((map) => map.high[one] <= 0)).length;
    const facts = [
      layer.type + kernel,
      layer.ordinal ? `convolution ${layer.ordinal}${layer.role ? `, ${layer.role}` : ""}` : null,
      times(layer.shape),
      layer.receptive_field ? `receptive field ${times(layer.receptive_field)}` : null,
      layer.parameters ? count(layer.parameters, "parameter") : null,
      `values from ${number(low)} to ${number(high)}`,
      silent ? `${count(silent, "unit")} nowhere positive` : null,
      ...(layer.notes || []),
    ];
    part("facts").replaceChildren(...facts.filter(Boolean).map((fact) => make("li", {}, fact)));
    sources(layer);
  }

  /* Where the layer's numbers and plates are, and what the maker notes of it and of the unit. */
  function sources(layer) {
    const kind = { maps: "activations", filters: "filters" }[state.show] || "deconv";
    const file = kind === "filters" ? "filters.npz" : `${kind}/${state.image}.npz`;
    const module = layer.module || layer.name;
    const key = { filters: module, peaks: `${layer.name}@peak` }[state.show] || layer.name;
    part("where").replaceChildren("Numbers: ", make("code", {}, `results/${net.name}/${file}`), ", key ",
      make("code", {}, key), ". ");
    const about = [layer.name, `unit ${state.unit} of ${layer.name}`].map((what) => `About ${what}`);
    const notes = [...document.querySelectorAll("main .notes")].filter((note) =>
      !section.contains(note) && about.includes(note.getAttribute("aria-label")));
    part("notes").replaceChildren(...notes.map((note) => note.cloneNode(true)));
    part("plate").replaceChildren();
    if (layer.plates === undefined) return;
    const plates = `${layer.plates}#${encodeURIComponent(`layer-${layer.name}`)}`;
    part("where").append(make("a", { href: plates }, "Its plates"));
    if (convatlas.canColour) return;
    const heading = document.getElementById(`layer-${layer.name}`);
    const plate = heading && [...heading.parentNode.querySelectorAll("figure.plate img")].at(-1);
    part("plate").append("This browser cannot colour the sheet, which is grey. ");
    if (plate) part("plate").append(plate.cloneNode());
  }

  function sheetOf(seen, view, images) {
    const { colours, ends } = sheet.show(seen, state, view, images);
    const isEmpty = !sheet.units.length;
    part("none").hidden = !isEmpty;
    part("none").textContent = `No unit here is ${state.only} over the set.`;
    part("bar").hidden = isEmpty;
    part("parts").hidden = true;
    if (isEmpty) return;
    const { first, last, all, isWhole } = sheet.part;
    const on = state.show === "filters" ? "" : ` on ${state.image}`;
    const units = count(sheet.units.length, "unit");
    const what = `${convatlas.KINDS[state.show]} of ${state.layer}${on}`;
    sheet.canvas.setAttribute("aria-label", `${what}: ${units}`);
    const chosen = sheet.at < 0 ? "The units of this sheet" : `Unit ${state.unit}, enlarge`;
    sheet.pick.setAttribute("aria-label", chosen);
    const each = colours === "diverging"
      ? [[-1, 1], ["−most", "most of each unit"]] : [[0, 1], ["lowest, or 0", "highest of each unit"]];
    part("bar").replaceChildren(ends ? convatlas.bar(colours, ends) : convatlas.bar(colours, ...each));
    part("parts").hidden = isWhole;
    part("part-words").textContent = `Units ${first} to ${last} of ${all.toLocaleString("en")}`;
  }

  function say({ layer, told }) {
    const name = convatlas.called(net, layer, state.unit);
    const unit = `Unit ${state.unit}${name ? `, ${name},` : ""} of ${layer.name}`;
    const values = convatlas.values(told.maps[state.image], state.unit, layer);
    part("said").textContent = `${unit} on ${state.image}: ${values}.`;
  }

  /* The choices: of images, as pictures where they are few and light, and of what to show. */
  function choices() {
    const isFew = net.images.length <= 8;
    const select = make("select", { "aria-label": "Image" },
      ...net.images.map(({ name, label }) => new Option(label, name)));
    const radios = net.images.map(({ name, label }) => {
      const address = convatlas.place(`atlas/${net.name}/${net.inputs[name].file}`);
      return make("label", { title: label }, make("input", { type: "radio", name: "image", value: name }),
        given.thumbs ? make("img", { src: address, alt: "", loading: "lazy" }) : null,
        make("span", {}, name));
    });
    part("images").append(...(isFew ? radios : [select]));
    part("kinds").append(...Object.entries(convatlas.KINDS).map(([kind, word]) =>
      make("label", {}, make("input", { type: "radio", name: "show", value: kind }),
        make("span", {}, word))));
  }

  // The unit, enlarged over the whole window

  const dialog = part("dialog");
  const unit = part("unit");

  const enlarge = () => dialog.open || go({ view: "unit" });

  /* Open or close the dialog as the state says: the browser's own button takes back that it was opened. */
  function place() {
    const wanted = state.view === "unit";
    if (wanted === dialog.open) return;
    if (!wanted) return dialog.close();
    part("unit-place").append(unit);
    dialog.showModal();
  }
  dialog.addEventListener("close", () => {
    part("panes").append(unit);
    sheet.pick.focus({ preventScroll: true });
    if (state.view === "unit") go({ view: USUAL.view }, true);
    else draw();
  });

  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || event.target.matches("input")) return;
    event.preventDefault();
    step(by);
  });

  /* Room for the unit's map, beside what else is to be seen at once. */
  function room() {
    const high = dialog.open ? Math.max(240, innerHeight - (narrow.matches ? 380 : 260)) : 400;
    return [unit.querySelector(".look").clientWidth, high];
  }

  // What a reader does

  function listen() {
    const on = (name, event, act) => part(name).addEventListener(event, act);
    for (const key of ["scale", "colours", "sort", "only"]) on(key, "change", (event) => go({ [key]: event.target.value }));
    on("images", "change", (event) => go({ image: event.target.value }));
    on("kinds", "change", (event) => go({ show: event.target.value }));
    on("unit-number", "change", (event) => {
      const wanted = Math.round(Number(event.target.value));
      go({ unit: Math.max(0, Math.min(byName.get(state.layer).units - 1, wanted || 0)) });
    });
    for (const [name, by] of [["before", -1], ["after", 1]]) on(name, "click", () => step(by));
    for (const [name, by] of [["earlier", -1], ["later", 1]]) {
      on(name, "click", () => go({ unit: sheet.units[sheet.beside(by)] }));
    }
    on("enlarge", "click", enlarge);
    on("close", "click", () => dialog.close());
    document.addEventListener("keydown", shortcuts);
    addEventListener("hashchange", moved);
    let width = 0;
    new ResizeObserver(() => {
      if (sheet.view && width !== part("frame").clientWidth) requestAnimationFrame(draw);
      width = part("frame").clientWidth;
    }).observe(part("frame"));
    // The drawing of the network leads here, and without this script to the plates.
    for (const link of document.querySelectorAll('.drawing a[href*="#layer-"]')) {
      const layer = link.getAttribute("href").split("#layer-").slice(1).join("#layer-");
      if (!byName.has(layer)) continue;
      link.addEventListener("click", (event) => {
        event.preventDefault();
        go({ layer });
        section.scrollIntoView();
      });
    }
  }

  /* Single letters can be switched off, for they get in the way of speech input. */
  function shortcuts(event) {
    const inside = section.contains(document.activeElement);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("input:not([type=radio]), select")) return;
    if (!inside && (!part("letters").checked || document.querySelector("dialog[open]"))) return;
    const paging = inside && !dialog.open && { PageDown: 1, PageUp: -1 }[event.key]; // which scroll it
    const by = { "]": 1, "[": -1 }[event.key] || paging;
    if (by) list.step(by);
    if (event.key === "/" && !dialog.open) {
      part("layers").open = true;
      part("search").focus();
    }
    if (by || event.key === "/") event.preventDefault();
  }

  function moved() {
    if (location.hash.length > 1 && !convatlas.read(location.hash).layer) return; // a heading of the page
    if (location.hash === addressed()) return; // where we went ourselves
    trouble("");
    state = understood(location.hash);
    draw();
  }

  // Start

  const panel = new convatlas.Panel(unit, choose);
  const sheet = new convatlas.Sheet(
    part("frame"), (i, stepping) => go({ unit: sheet.units[i] }, stepping), enlarge);
  const list = new convatlas.Layers(net, part, (layer, stepping) => {
    go({ layer }, stepping);
    if (narrow.matches && !stepping) part("layers").open = false;
  });
  const selects = { scale: "SCALES", colours: "COLOURS", sort: "SORTS", only: "ONLY" };
  for (const [name, words] of Object.entries(selects).map(([name, key]) => [name, convatlas[key]])) {
    part(name).append(...Object.entries(words).map(([value, word]) => new Option(word, value)));
  }
  part("colours").disabled = !convatlas.canColour;
  choices();
  section.querySelector(".browser").hidden = false;
  part("layers").open = !narrow.matches;
  state = understood(location.hash);
  listen();
  draw();
  if (convatlas.read(location.hash).layer) section.scrollIntoView();
})();
