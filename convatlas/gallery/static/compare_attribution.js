"use strict";

/* Two attribution maps of one method side by side, each of a network, an image and a target class. The address holds
   the method and both sides, `#method=gradient&a=network%3Dlenet5%26image%3D...&b=...`. */

(() => {
  const { methods, method: firstMethod, networks } = JSON.parse(document.getElementById("attribution-data").textContent);
  const page = document.querySelector(".comparison");
  const getPart = (name) => page.querySelector(`[data-part="${name}"]`);
  let state = null; // { method, a, b }, each side { network, image, target }

  const find = (list, key, value) => list.find((item) => String(item[key]) === String(value));

  /* Complete a side: what the values do not name or the run does not have is the first that there is. */
  function completeSide(values, fallback = {}) {
    const network = find(networks, "name", values.network) || find(networks, "name", fallback.network) || networks[0];
    const image = find(network.images, "name", values.image) || find(network.images, "name", fallback.image) ||
      network.images[0];
    const target = find(image.targets, "number", values.target) || image.targets[0];
    return { network: network.name, image: image.name, target: String(target.number) };
  }

  /* Look up what a side shows. */
  function lookUp({ network: name, image: imageName, target: number }) {
    const network = find(networks, "name", name);
    const image = find(network.images, "name", imageName);
    return { network, image, target: find(image.targets, "number", number) };
  }

  /* The second side where the address names none: another class of the image, or else the next image or network. */
  function chooseSecond(first) {
    const { network, image, target } = lookUp(first);
    const next = (list, item) => list[(list.indexOf(item) + 1) % list.length];
    if (image.targets.length > 1) return { ...first, target: String(next(image.targets, target).number) };
    if (network.images.length > 1) return completeSide({ network: network.name, image: next(network.images, image).name });
    return completeSide({ network: next(networks, network).name });
  }

  class Side {
    constructor(key) {
      const element = getPart(key);
      this.selects = Object.fromEntries(["network", "image", "target"].map((name) => [name,
        makeElement("select", { change: ({ target }) =>
          changeState({ [key]: completeSide({ ...state[key], [name]: target.value }) }) })]));
      this.selects.network.append(...networks.map(({ name }) => new Option(name)));
      const fields = [["Network", "network"], ["Image", "image"], ["Class", "target"]].map(([label, name]) =>
        makeElement("label", { class: "field" }, makeElement("span", {}, label), this.selects[name]));
      this.figure = makeElement("div");
      element.append(makeElement("div", { class: "fields" }, ...fields), this.figure);
    }

    /* Show a map, or say that the method has none. */
    show(values, method) {
      const { network, image, target } = lookUp(values);
      const { selects } = this;
      selects.image.replaceChildren(...network.images.map(({ name, title }) => new Option(title, name)));
      selects.target.replaceChildren(...image.targets.map(({ name, number }) => new Option(name, number)));
      for (const name of Object.keys(selects)) selects[name].value = values[name];
      const map = target.maps[method];
      const text = makeElement("p", { class: "fine" }, [image.label, `${target.name}: ${target.score}`].filter(Boolean).join("; "));
      const link = makeElement("a", { href: `${convatlas.toUrl(target.page)}#${target.anchor}` },
        `All maps of ${network.name}`);
      const parts = map ? makeFigure(map, image) :
        [makeElement("p", { class: "note" }, `${methods[method]} has no map of this network: its page says why.`)];
      this.figure.replaceChildren(...parts, text, makeElement("p", { class: "fine" }, link));
    }
  }

  function makeFigure(map, image) {
    const [width, height] = map.size;
    const makeImage = (name, file, alt) =>
      makeElement("img", { class: name, src: convatlas.toUrl(file), alt, width, height });
    const bar = makeSvgElement("svg",
      { class: "ramp", viewBox: "0 0 100 5", preserveAspectRatio: "none", "aria-hidden": "true" },
      makeSvgElement("rect", { width: 100, height: 5, fill: `url(#ramp-${map.ramp})` }));
    return [makeElement("figure", { class: "map-figure" },
      makeElement("div", { class: "stack" }, makeImage("map", map.file, map.alt), makeImage("input", image.file, "")),
      bar,
      makeElement("p", { class: "ticks" }, ...map.ticks.map((tick) => makeElement("span", {}, tick))),
      makeElement("p", { class: "fine" }, [map.layer, ...map.facts].filter(Boolean).join("; ")))];
  }

  /* How the scales of both sides relate. */
  function describeScales(method) {
    const [first, second] = ["a", "b"].map((key) => lookUp(state[key]).target.maps[method]);
    if (!first || !second) return "";
    const ratio = second.end / first.end;
    if (ratio === 1) return "Both maps have the same scale.";
    return `Each map has its own scale: that of the second ends at ${ratio.toPrecision(2)} times the value of the first.`;
  }

  const sides = { a: new Side("a"), b: new Side("b") };
  getPart("method").append(...Object.entries(methods).map(([key, title]) => new Option(title, key)));

  const formatAddress = ({ method, a, b }) =>
    `#${convatlas.formatHash({ method, a: convatlas.formatHash(a), b: convatlas.formatHash(b) })}`;

  /* Change the state by the address, whose event draws. */
  function changeState(change) {
    location.hash = formatAddress({ ...state, ...change });
  }

  /* Read the state from the address, completed by what the run has. */
  function readAddress() {
    const { method, a: first, b: second } = convatlas.parseHash(location.hash);
    const values = [first, second].map((text) => convatlas.parseHash(text || ""));
    const a = completeSide(values[0]);
    const b = second ? completeSide(values[1], a) : chooseSecond(a);
    const missing = [[values[0], a], [values[1], b]].flatMap(([asked, shown]) =>
      Object.keys(shown).filter((key) => asked[key] && asked[key] !== shown[key]).map((key) => `${key} “${asked[key]}”`));
    if (method && !methods[method]) missing.push(`method “${method}”`);
    getPart("error").textContent = missing.length ? `Not found: ${missing.join(", ")}. Showing the default.` : "";
    getPart("error").hidden = !missing.length;
    return { method: methods[method] ? method : firstMethod, a, b };
  }

  function draw() {
    state = readAddress();
    getPart("method").value = state.method;
    for (const [key, side] of Object.entries(sides)) side.show(state[key], state.method);
    getPart("scales").textContent = describeScales(state.method);
  }

  getPart("method").addEventListener("change", ({ target }) => changeState({ method: target.value }));
  getPart("swap").addEventListener("click", () => changeState({ a: state.b, b: state.a }));
  addEventListener("hashchange", draw);
  getPart("sides").hidden = false;
  draw();
})();
