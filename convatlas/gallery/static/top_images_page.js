"use strict";

/* The page of top-activating images: a layer's units, one row each. The address holds the layer, the first unit of the
   page and the filter: `#layer=conv1&unit=12&only=marked`. */

(() => {
  const UNITS_PER_PAGE = 24;
  const { network } = convatlas.readPageData("top-images-data");
  const page = document.querySelector(".top-images-page");
  const getPart = (name) => page.querySelector(`[data-part="${name}"]`);
  let index = null;
  let state = null; // layer, unit and filter
  let drawCount = 0;
  let isPaging = false; // whether the reader has asked for further units

  function readState() {
    const values = convatlas.parseHash(location.hash);
    const layer = index.layers.find(({ name }) => name === values.layer) || index.layers[0];
    const unit = /^\d{1,9}$/.test(values.unit) && values.unit < layer.units ? Number(values.unit) : 0;
    return { layer, unit, only: values.only === "marked" ? "marked" : "all" };
  }

  const formatState = ({ layer, unit, only }) =>
    convatlas.formatHash({ layer: layer.name, unit: unit || null, only: only === "all" ? null : only });

  const changeState = (change) => { location.hash = formatState({ ...state, ...change }); };

  async function draw() {
    const call = ++drawCount;
    state = readState();
    const { layer, only } = state;
    const units = await convatlas.loadLayerUnits(network, index, layer);
    if (call !== drawCount) return;
    const all = [...Array(units.count).keys()];
    const shown = only === "marked" ? all.filter((unit) => units.marks[unit]) : all;
    const position = Math.max(0, shown.findIndex((unit) => unit >= state.unit));
    const first = position - (position % UNITS_PER_PAGE);
    const rows = shown.slice(first, first + UNITS_PER_PAGE);
    updateControls(units, shown, first, rows);
    getPart("rows").replaceChildren(...rows.map((unit) => renderRow(units, unit)));
    const target = isPaging ? getPart("status") : state.unit && page.querySelector(`[data-unit="${state.unit}"]`);
    if (target) target.scrollIntoView({ block: "start" });
    isPaging = false;
  }

  function updateControls(units, shown, first, rows) {
    const { layer, only } = state;
    getPart("layer").value = layer.name;
    getPart("only").value = only;
    const number = index.layers.indexOf(layer);
    getPart("previous-layer").disabled = number === 0;
    getPart("next-layer").disabled = number === index.layers.length - 1;
    getPart("field").textContent = convatlas.describeFields(index, layer);
    const nMarked = Object.keys(units.marks).length;
    const marked = nMarked ? ` ${nMarked} possible shortcut${nMarked > 1 ? "s" : ""}.` : "";
    getPart("status").textContent = shown.length
      ? `Units ${rows[0]} to ${rows[rows.length - 1]} of ${layer.name}, ${units.count} units.${marked}`
      : `No possible shortcut among the ${units.count} units of ${layer.name}.`;
    for (const [name, start] of [["previous-page", first - UNITS_PER_PAGE], ["next-page", first + UNITS_PER_PAGE]]) {
      const button = getPart(name);
      button.disabled = start < 0 || start >= shown.length;
      button.onclick = () => {
        isPaging = true;
        changeState({ unit: shown[start] });
      };
    }
    getPart("pager").hidden = shown.length <= UNITS_PER_PAGE;
  }

  function renderRow(units, unit) {
    const { layer } = state;
    const className = (layer.scores && index.predicted_classes[unit]) || "";
    const title = `Unit ${unit}`;
    const heading = makeElement("h3", {}, layer.explored
      ? makeElement("a", { href: convatlas.getExplorerUrl(network, layer, unit) }, title) : title);
    if (className && className !== String(unit)) heading.append(makeElement("span", { class: "subtitle" }, className));
    const note = units.getNote(unit);
    return makeElement("li", { "data-unit": unit }, heading,
      note ? makeElement("p", { class: "fine" }, note) : null,
      units.marks[unit] ? convatlas.renderMark(units.marks[unit]) : null,
      convatlas.renderTopImages(network, index, layer, unit, units.getPeaks(unit)));
  }

  function showError(error) {
    getPart("error").textContent = error.message;
    getPart("error").hidden = false;
  }

  async function start() {
    index = await convatlas.loadTopImages(network);
    if (!index.layers.length) throw new Error("No layer has units with statistics.");
    getPart("layer").append(...index.layers.map(({ name, units }) => new Option(`${name} (${units})`, name)));
    getPart("layer").addEventListener("change", (event) => {
      changeState({ layer: index.layers.find(({ name }) => name === event.target.value), unit: 0 });
    });
    getPart("only").addEventListener("change", (event) => changeState({ only: event.target.value, unit: 0 }));
    for (const [name, step] of [["previous-layer", -1], ["next-layer", 1]]) {
      getPart(name).addEventListener("click", () =>
        changeState({ layer: index.layers[index.layers.indexOf(state.layer) + step], unit: 0 }));
    }
    window.addEventListener("hashchange", () => draw().catch(showError));
    page.hidden = false;
    await draw();
  }

  start().catch((error) => { page.hidden = false; showError(error); });
})();
