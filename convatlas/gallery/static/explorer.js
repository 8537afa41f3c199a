"use strict";

/* The explorer of one network: the list of its layers, the grid of a layer's units, and one unit in detail. The state
   is in the address, `#layer=layer1.0.conv2&unit=17&image=cat`, so that links and the browser's history restore it. */

(() => {
  const { formatNumber, formatCount, formatShape } = convatlas;
  const section = document.getElementById("explorer");
  const pageData = convatlas.readPageData("explorer-data");
  const net = pageData.network;
  const getPart = (name) => section.querySelector(`[data-part="${name}"]`);
  const layersByName = new Map(net.layers.map((layer) => [layer.name, layer]));
  const DEFAULTS = { ...convatlas.DEFAULTS, scale: pageData.scale };
  const isNarrow = matchMedia("(max-width: 60rem)");
  const resultRadios = [...document.querySelectorAll(".result .images input")]; // the image of the first screen

  let state = null;
  let drawCount = 0; // a call of draw ends where a later one has begun
  let unitData = {}; // of the layer that is shown

  // State and address

  function readState(hash) {
    const values = convatlas.parseHash(hash);
    const missing = convatlas.describeMissing(net, values);
    if (missing) showError(`Not found: ${missing}. Showing the default.`);
    return convatlas.parseState(net, values, DEFAULTS) || convatlas.parseState(net, {}, DEFAULTS);
  }

  const formatAddress = () => `#${convatlas.formatState(state, DEFAULTS)}`;

  /* Change the state. A choice is an entry of the browser's history; steps from unit to unit are not. */
  function changeState(change, isStepping = false) {
    state = { ...state, ...change };
    const isOrdered = state.sort !== DEFAULTS.sort || state.only !== DEFAULTS.only;
    const isOtherList = ["layer", "sort", "only"].some((key) => key in change) && !("unit" in change);
    if (isOrdered && isOtherList) state.unit = null; // the first unit of the list
    if (state.unit >= layersByName.get(state.layer).units) state.unit = null; // a unit of the previous layer
    convatlas.updateAddress(formatAddress, isStepping);
    showError("");
    draw();
  }

  /* Go to the next (1) or previous (-1) unit in the order of the grid. */
  function stepUnit(step) {
    const units = convatlas.sortUnits(unitData, state, [...Array(layersByName.get(state.layer).units).keys()]);
    const index = units.indexOf(state.unit);
    if (units.length) changeState({ unit: units[index < 0 ? 0 : (index + step + units.length) % units.length] }, true);
  }

  const onPanelChange = (change, isStepping) =>
    ("step" in change ? stepUnit(change.step) : changeState(change, isStepping));

  // Drawing

  async function draw() {
    const call = ++drawCount;
    syncDialog();
    section.setAttribute("aria-busy", "true");
    try {
      const loaded = await convatlas.loadUnit(state);
      if (call !== drawCount) return;
      unitData = loaded.data;
      if (state.unit === null) state.unit = chooseUnit(unitData, state);
      const view = convatlas.getView(net, loaded.layer, unitData, state.show, state.image);
      const images = await convatlas.loadImages(view);
      if (call !== drawCount) return;
      updateControls(loaded.layer, Boolean(unitData.dataset_pass));
      document.dispatchEvent(new CustomEvent("convatlas-image", { detail: state.image })); // for the diagrams
      describeLayer(loaded);
      drawGrid(loaded, view, images);
      announce(loaded);
      await panel.show(state, getRoom());
    } catch (error) {
      if (call === drawCount) showError(error.message);
    } finally {
      if (call === drawCount) section.removeAttribute("aria-busy");
    }
  }

  /* The unit that a layer opens with: the first in a chosen order or selection, else the best classical match, else
     the unit with the widest range of values. */
  function chooseUnit({ matches, maps, dataset_pass }, { image, sort, only }) {
    const { min, max } = maps[image];
    if (sort !== DEFAULTS.sort || only !== DEFAULTS.only) {
      const [first] = convatlas.sortUnits({ dataset_pass }, { sort, only }, [...min.keys()]);
      if (first !== undefined) return first;
    }
    const correlations = (matches || []).map((match) => (match ? Math.abs(match.r) : 0));
    const ranges = min.map((value, unit) => max[unit] - value);
    const scores = correlations.some(Boolean) ? correlations : ranges;
    return scores.indexOf(scores.reduce((best, score) => Math.max(best, score), 0));
  }

  function showError(message) {
    const note = getPart("error");
    note.textContent = message;
    note.hidden = !message;
  }

  function updateControls(layer, hasStatistics) {
    for (const key of ["scale", "colours", "sort", "only"]) getPart(key).value = state[key];
    getPart("sorting").hidden = !hasStatistics;
    for (const control of getPart("images").querySelectorAll("input, select")) {
      if (control.type === "radio") control.checked = control.value === state.image;
      else control.value = state.image;
    }
    const kinds = convatlas.getViewKinds(layer);
    getPart("kinds").hidden = kinds.length === 1;
    for (const radio of getPart("kinds").querySelectorAll("input")) {
      radio.checked = radio.value === state.show;
      radio.parentNode.hidden = !kinds.includes(radio.value);
    }
    for (const radio of resultRadios) radio.checked = radio.value === state.image;
    list.select(layer.name);
    getPart("current-layer").textContent = layer.name;
    getPart("context").textContent = `${layer.name} on ${convatlas.titleImage(net, state.image)}`;
    getPart("unit-number").max = layer.units - 1;
    getPart("unit-number").value = state.unit;
    getPart("unit-count").textContent = `of ${layer.units.toLocaleString("en")}`;
    const side = { ...state, view: DEFAULTS.view };
    const formatSide = (change) => convatlas.formatState({ ...side, ...change }, convatlas.DEFAULTS, true);
    const sides = convatlas.formatHash({ a: formatSide({}), b: formatSide(chooseComparison(layer)) });
    getPart("compare").href = `${convatlas.toUrl("compare.html")}#${sides}`;
  }

  /* What a unit is compared with at first: itself on the next image, or the next unit. */
  function chooseComparison(layer) {
    const index = net.images.findIndex(({ name }) => name === state.image);
    if (net.images.length > 1) return { image: net.images[(index + 1) % net.images.length].name };
    return { unit: (state.unit + 1) % layer.units };
  }

  function describeLayer({ layer, data }) {
    getPart("name").textContent = layer.name;
    const [min, max] = convatlas.getRange(net, layer, data, "maps", "layer", 0);
    const maps = Object.values(data.maps);
    const hasNumbers = maps.some((one) => one.min.some((value) => value !== null));
    const units = [...Array(layer.units).keys()];
    const inactiveUnits = units.filter((unit) => maps.every(({ max: maxima, non_finite: counts }) =>
      maxima[unit] <= 0 && !(counts && counts[unit])));
    const nInactive = layer.is_never_positive ? 0 : inactiveUnits.length;
    const facts = [
      convatlas.describeKernel(layer),
      layer.ordinal ? `convolution ${layer.ordinal}${layer.role ? `, ${layer.role}` : ""}` : null,
      formatShape(layer.shape),
      convatlas.describeReceptiveField(layer),
      layer.parameters ? formatCount(layer.parameters, "parameter") : null,
      hasNumbers ? `min ${formatNumber(min)}, max ${formatNumber(max)}` : "no finite values",
      nInactive ? `${formatCount(nInactive, "unit")} inactive on the sample images` : null,
      data.dataset_pass && data.dataset_pass.dead.length
        ? `${data.dataset_pass.dead.length.toLocaleString("en")} dead on all ${net.dataset_pass.images.toLocaleString("en")} `
          + `${net.dataset_pass.split} images` : null,
      ...(layer.notes || []),
    ];
    getPart("facts").replaceChildren(...facts.filter(Boolean).map((fact) => makeElement("li", {}, fact)));
    showSource(layer);
    showNotes(layer);
    showFigure(layer);
  }

  /* Name the file of the data, which is a download where it is published, and the code that loads a unit's values; and
     link to the layer's figures. */
  function showSource(layer) {
    const folder = { maps: "activations", filters: "filters" }[state.show] || "deconv";
    const file = folder === "filters" ? "filters.npz" : `${folder}/${state.image}.npz`;
    const published = document.querySelector(`.files a[href="../arrays/${net.name}/${CSS.escape(file)}"]`);
    const name = makeElement("code", {}, `results/${net.name}/${file}`);
    const view = convatlas.getView(net, layer, unitData, state.show, state.image);
    const code = convatlas.formatLoadingCode({ net, layer, state, kind: state.show, view }, state.unit);
    getPart("source").replaceChildren("Data: ",
      published ? makeElement("a", { href: published.href, download: true }, name) : name, ", loaded by ",
      makeElement("code", { class: "loading-code" }, code), ". ");
    if (layer.figures === undefined) return;
    const link = `${net.figure_files[layer.figures - 1]}#${encodeURIComponent(`layer-${layer.name}`)}`;
    getPart("source").append(makeElement("a", { href: link }, "Figures"));
  }

  /* Repeat the config's notes on the layer and the unit, which are elsewhere on the page. */
  function showNotes(layer) {
    const labels = [`About ${layer.name}`, `About unit ${state.unit} of ${layer.name}`];
    const notes = [...document.querySelectorAll("main .notes")].filter((note) =>
      !section.contains(note) && labels.includes(note.getAttribute("aria-label")));
    getPart("notes").replaceChildren(...notes.map((note) => note.cloneNode(true)));
  }

  /* Show the layer's last figure where the browser cannot apply a colour map. */
  function showFigure(layer) {
    getPart("figure").replaceChildren();
    if (convatlas.canColour || layer.figures === undefined) return;
    const heading = document.getElementById(`layer-${layer.name}`);
    const image = heading && [...heading.parentNode.querySelectorAll("figure.figure img")].at(-1);
    getPart("figure").append("This browser cannot apply the colour map; the grid is shown in greyscale. ");
    if (image) getPart("figure").append(image.cloneNode());
  }

  function drawGrid(loaded, view, images) {
    const { colormap, limits } = grid.show(loaded, state, view, images);
    const isEmpty = !grid.units.length;
    getPart("empty").hidden = !isEmpty;
    getPart("empty").textContent = `No ${state.only === "dead" ? "dead" : "active"} units in this layer.`;
    getPart("colorbar").hidden = isEmpty;
    getPart("save").hidden = isEmpty;
    getPart("pager").hidden = true;
    if (isEmpty) return;
    const { first, last, nUnits, isOnly } = grid.page;
    const image = state.show === "filters" ? "" : ` on ${convatlas.titleImage(net, state.image)}`;
    const title = `${convatlas.VIEW_KINDS[state.show]} of ${state.layer}${image}`;
    grid.canvas.setAttribute("aria-label", `${title}: ${formatCount(nUnits, "unit")}`);
    const focusLabel = grid.index < 0 ? "Unit grid" : `Zoom unit ${state.unit}`;
    grid.focusButton.setAttribute("aria-label", focusLabel);
    const unitScale = colormap === "diverging"
      ? [[-1, 1], ["−max |x| of each unit", "max |x| of each unit"]]
      : [[0, 1], ["min (or 0) of each unit", "max of each unit"]];
    const colorbar = limits
      ? convatlas.renderColorbar(colormap, limits) : convatlas.renderColorbar(colormap, ...unitScale);
    getPart("colorbar").replaceChildren(colorbar, ...convatlas.renderNonFiniteLegend(view));
    getPart("pager").hidden = isOnly;
    getPart("pager-text").textContent = `Units ${first} to ${last} of ${nUnits.toLocaleString("en")}`;
  }

  /* Describe the unit in the status line, which screen readers announce. */
  function announce({ layer, data }) {
    const className = convatlas.getClassName(net, layer, state.unit);
    const unit = `Unit ${state.unit}${className ? `, ${className},` : ""} of ${layer.name}`;
    const values = convatlas.describeValues(data.maps[state.image], state.unit, layer);
    getPart("status").textContent = `${unit} on ${convatlas.titleImage(net, state.image)}: ${values}.`;
  }

  /* Build the choices of the image, with thumbnails where these are few and light, and of the view. */
  function buildControls() {
    const hasRadios = net.images.length <= 8;
    const select = makeElement("select", { "aria-label": "Image" },
      ...net.images.map(({ name, label }) => new Option(label, name)));
    const radios = net.images.map(({ name, title, label }) => {
      const url = convatlas.toUrl(`explorer/${net.name}/${net.inputs[name].file}`);
      const thumbnail = pageData.show_thumbnails ? makeElement("img", { src: url, alt: "", loading: "lazy" }) : null;
      const radio = makeElement("input", { type: "radio", name: "image", value: name });
      return makeElement("label", { title: label }, radio, thumbnail, makeElement("span", {}, title));
    });
    getPart("images").append(...(hasRadios ? radios : [select]));
    getPart("kinds").append(...Object.entries(convatlas.VIEW_KINDS).map(([kind, title]) =>
      makeElement("label", {}, makeElement("input", { type: "radio", name: "show", value: kind }),
        makeElement("span", {}, title))));
    const selects = {
      scale: convatlas.SCALES, colours: convatlas.COLOURS, sort: convatlas.SORTS, only: convatlas.FILTERS,
    };
    for (const [name, titles] of Object.entries(selects)) {
      getPart(name).append(...Object.entries(titles).map(([value, title]) => new Option(title, value)));
    }
    getPart("colours").disabled = !convatlas.canColour;
  }

  // The zoomed unit, in a dialog over the whole window

  const dialog = getPart("dialog");
  const unitElement = getPart("unit");

  const zoom = () => dialog.open || changeState({ view: "unit" });

  /* Open or close the dialog according to the state, so that the browser's back button closes it. */
  function syncDialog() {
    const isZoomed = state.view === "unit";
    if (isZoomed === dialog.open) return;
    if (!isZoomed) return dialog.close();
    getPart("dialog-content").append(unitElement);
    dialog.showModal();
  }
  dialog.addEventListener("close", () => {
    getPart("panes").append(unitElement);
    grid.focusButton.focus({ preventScroll: true });
    if (state.view === "unit") changeState({ view: DEFAULTS.view }, true);
    else draw();
  });

  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || event.target.matches("input")) return;
    event.preventDefault();
    stepUnit(step);
  });

  /* The room [width, height] for the unit's map, beside or above its image. */
  function getRoom() {
    const width = unitElement.querySelector(".map-view").clientWidth;
    if (!dialog.open) return [width, Math.max(200, Math.min(400, innerHeight - 540))];
    if (isNarrow.matches) return [width, Math.max(240, innerHeight - 420)];
    return [Math.max(240, width - 272), Math.max(240, innerHeight - 260)];
  }

  // Events

  function addListeners() {
    const on = (name, event, listener) => getPart(name).addEventListener(event, listener);
    for (const key of ["scale", "colours", "sort", "only"]) {
      on(key, "change", (event) => changeState({ [key]: event.target.value }));
    }
    on("images", "change", (event) => changeState({ image: event.target.value }));
    for (const radio of resultRadios) {
      radio.addEventListener("change", () => changeState({ image: radio.value }, true));
    }
    on("kinds", "change", (event) => changeState({ show: event.target.value }));
    on("unit-number", "change", (event) => {
      const unit = Math.round(Number(event.target.value)) || 0;
      changeState({ unit: Math.max(0, Math.min(layersByName.get(state.layer).units - 1, unit)) });
    });
    for (const [name, step] of [["previous-unit", -1], ["next-unit", 1]]) on(name, "click", () => stepUnit(step));
    for (const [name, step] of [["previous-page", -1], ["next-page", 1]]) {
      on(name, "click", () => changeState({ unit: grid.units[grid.getPageStart(step)] }));
    }
    on("zoom", "click", zoom);
    on("close", "click", () => dialog.close());
    document.addEventListener("keydown", onKey);
    addEventListener("hashchange", onHashChange);
    let width = 0;
    new ResizeObserver(() => {
      if (grid.view && width !== getPart("grid").clientWidth) requestAnimationFrame(draw);
      width = getPart("grid").clientWidth;
    }).observe(getPart("grid"));
    // Links in the architecture diagram lead to a layer's figures; with this script they lead to the explorer.
    for (const link of document.querySelectorAll('.diagram a[href*="#layer-"]')) {
      const layer = link.getAttribute("href").split("#layer-").slice(1).join("#layer-");
      if (!layersByName.has(layer)) continue;
      link.addEventListener("click", (event) => {
        event.preventDefault();
        changeState({ layer });
        section.scrollIntoView();
      });
    }
  }

  /* Keyboard shortcuts; outside the explorer they can be switched off, because single keys interfere with speech
     input. */
  function onKey(event) {
    const isInside = section.contains(document.activeElement);
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches("input:not([type=radio]), select")) return;
    if (!isInside && (!getPart("shortcuts").checked || document.querySelector("dialog[open]"))) return;
    const pageKeys = { PageDown: 1, PageUp: -1 }; // in the dialog these keys scroll
    const step = { "]": 1, "[": -1 }[event.key] || (isInside && !dialog.open && pageKeys[event.key]);
    if (step) list.step(step);
    if (event.key === "/" && !dialog.open) {
      getPart("layers").open = true;
      getPart("search").focus();
    }
    if (step || event.key === "/") event.preventDefault();
  }

  function onHashChange() {
    if (location.hash.length > 1 && !convatlas.parseHash(location.hash).layer) return; // a heading of the page
    if (location.hash === formatAddress()) return; // written by this script
    showError("");
    state = readState(location.hash);
    draw();
    scrollIntoView();
  }

  /* Scroll to the explorer, unless it fills most of the window. */
  function scrollIntoView() {
    const { top, bottom } = section.getBoundingClientRect();
    if (top > innerHeight / 2 || bottom < innerHeight / 2) section.scrollIntoView();
  }

  // Start

  const panel = new convatlas.UnitPanel(unitElement, onPanelChange);
  const grid = new convatlas.UnitGrid(
    getPart("grid"), (index, isStepping) => changeState({ unit: grid.units[index] }, isStepping), zoom,
    () => isNarrow.matches && getPart("grid").scrollIntoView());
  const list = new convatlas.LayerList(net, getPart, (layer, isStepping) => {
    changeState({ layer }, isStepping);
    if (isNarrow.matches && !isStepping) getPart("layers").open = false;
  });
  panel.tools.append(convatlas.renderSaveButtons("map", () => [state, "maps", [state.unit]], true));
  getPart("save").append(convatlas.renderSaveButtons("all units", () => [state, state.show, grid.shownUnits], false));
  buildControls();
  section.querySelector(".browser").hidden = false;
  getPart("layers").open = !isNarrow.matches;
  state = readState(location.hash);
  addListeners();
  draw();
  if (convatlas.parseHash(location.hash).layer) section.scrollIntoView();
})();
