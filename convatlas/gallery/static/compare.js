"use strict";

/* Any two units side by side, each with its network, layer and image. The address holds both,
   `#a=network%3Dlenet5%26layer%3Dconv1...&b=...`, each in the format of the explorer's address. */

(() => {
  const pageData = convatlas.readPageData("compare-data");
  const page = document.querySelector(".comparison");
  const getPart = (name) => page.querySelector(`[data-part="${name}"]`);
  const { DEFAULTS } = convatlas;
  let state = null; // { a, b, linked }
  let drawCount = 0; // a call of draw ends where a later one has begun

  class Side {
    constructor(key) {
      this.key = key;
      const element = getPart(key);
      this.network = makeElement("select", { change: () => this.applyChange({ network: this.network.value }) },
        ...pageData.networks.map((name) => new Option(name)));
      this.layer = makeElement("select", { change: () => this.applyChange({ layer: this.layer.value }) });
      this.image = makeElement("select", { change: () => this.applyChange({ image: this.image.value }) });
      const clip = (value) => Math.max(0, Math.min(this.unit.max, Math.round(value) || 0));
      this.unit = makeElement("input", { type: "number", min: 0, inputmode: "numeric",
        change: () => this.applyChange({ unit: clip(this.unit.value) }) });
      this.facts = makeElement("p", { class: "fine" });
      this.link = makeElement("a", {}, "Open in network");
      const controls = { Network: this.network, Layer: this.layer, Unit: this.unit, Image: this.image };
      const fields = Object.entries(controls).map(([label, control]) =>
        makeElement("label", { class: "field" }, makeElement("span", {}, label), control));
      element.append(makeElement("div", { class: "fields" }, ...fields), this.facts);
      this.panel = new convatlas.UnitPanel(element, (change, isStepping) => this.applyChange(change, isStepping));
      element.append(makeElement("p", { class: "fine" }, this.link));
    }

    /* Apply a change to this side; another network starts with its own defaults. */
    applyChange(change, isStepping = false) {
      const current = state[this.key];
      if ("step" in change) {
        const units = Number(this.unit.max) + 1;
        return changeState({ [this.key]: { ...current, unit: (current.unit + change.step + units) % units } }, true);
      }
      const otherKey = this.key === "a" ? "b" : "a";
      const shared = "overlay" in change ? { overlay: change.overlay } : {};
      const base = change.network ? { scale: current.scale, colours: current.colours } : current;
      const next = { ...base, ...change };
      const layer = this.net.layers.find(({ name }) => name === next.layer);
      if (layer && next.unit >= layer.units) next.unit = null; // a unit of the previous layer
      return changeState({ [this.key]: next, [otherKey]: { ...state[otherKey], ...shared } }, isStepping);
    }

    /* Fill the controls for the unit that is shown. */
    updateControls({ net, layer }) {
      const current = state[this.key];
      this.network.value = net.name;
      if (this.net !== net) {
        this.net = net;
        const groups = new Map();
        for (const { name, stage } of net.layers) {
          if (!groups.has(stage)) groups.set(stage, makeElement("optgroup", { label: stage }));
          groups.get(stage).append(new Option(name));
        }
        this.layer.replaceChildren(...groups.values());
        this.image.replaceChildren(...net.images.map(({ name, title }) => new Option(title, name)));
      }
      this.layer.value = layer.name;
      this.image.value = current.image;
      this.unit.max = layer.units - 1;
      this.unit.value = current.unit;
      const facts = [convatlas.describeKernel(layer), convatlas.formatShape(layer.shape),
        convatlas.describeReceptiveField(layer)];
      this.facts.textContent = facts.filter(Boolean).join(", ");
      const hash = convatlas.formatState(current, { ...DEFAULTS, scale: null }); // the page may have another default
      this.link.href = `${convatlas.toUrl(`networks/${net.name}.html`)}#${hash}`;
    }
  }

  const sides = { a: new Side("a"), b: new Side("b") };

  /* Change the state. A choice changes the address, and its event draws; a step draws at once. */
  function changeState(change, isStepping = false) {
    const next = { ...state, ...change };
    if (isStepping) state = next;
    convatlas.updateAddress(() => formatAddress(isStepping ? state : next), isStepping);
    if (isStepping) draw(state);
  }

  function formatAddress({ a, b, linked }) {
    const [first, second] = [a, b].map((side) => convatlas.formatState(side, DEFAULTS, true));
    return `#${convatlas.formatHash({ a: first, b: second, linked: linked ? null : "no" })}`;
  }

  /* Read the state from the address, completed by what the network's own page would show. */
  async function readAddress() {
    const { a: first, b: second, linked } = convatlas.parseHash(location.hash);
    const a = await readSide(first);
    const b = second ? await readSide(second) : await chooseSecond(a);
    return { a, b, linked: linked !== "no" };
  }

  async function readSide(text) {
    const values = convatlas.parseHash(text || "");
    const name = pageData.networks.includes(values.network) ? values.network : pageData.networks[0];
    const net = await convatlas.loadNetwork(name);
    const missing = convatlas.describeMissing(net, values);
    if (missing) showError(`Not found in ${name}: ${missing}. Showing the default.`);
    return convatlas.parseState(net, values, DEFAULTS) || convatlas.parseState(net, {}, DEFAULTS);
  }

  /* The second side where the address names none: the same unit on the next image. */
  async function chooseSecond(a) {
    const { images } = await convatlas.loadNetwork(a.network);
    const index = images.findIndex(({ name }) => name === a.image);
    return { ...a, image: images[(index + 1) % images.length].name };
  }

  /* Draw a state, or the state that a promise gives. */
  async function draw(pendingState) {
    const call = ++drawCount;
    page.setAttribute("aria-busy", "true");
    try {
      const next = await pendingState;
      const loaded = { a: await convatlas.loadUnit(next.a), b: await convatlas.loadUnit(next.b) };
      if (call !== drawCount) return;
      state = next;
      for (const key of ["a", "b"]) if (state[key].unit === null) state[key].unit = 0;
      const shared = state.linked ? shareScales(loaded) : {};
      getPart("linked").checked = state.linked;
      for (const key of ["scale", "colours"]) getPart(key).value = state.a[key];
      for (const [key, side] of Object.entries(sides)) {
        side.updateControls(loaded[key]);
        const { clientWidth } = getPart(key); // of which the image takes a part
        await side.panel.show({ ...state[key], ...shared }, [Math.max(240, clientWidth - 200), 360]);
      }
    } catch (error) {
      if (call === drawCount) showError(error.message);
    } finally {
      if (call === drawCount) page.removeAttribute("aria-busy");
    }
  }

  /* For each kind of view the range of both units together, and a diverging colour map where either is signed. */
  function shareScales(loaded) {
    const getRanges = (kind) => ["a", "b"].map((key) => {
      const { net, layer, data } = loaded[key];
      if (!convatlas.getViewKinds(layer).includes(kind)) return null;
      return convatlas.getRange(net, layer, data, kind, state[key].scale, state[key].unit);
    }).filter((range) => range && range.every(Number.isFinite));
    const joinRanges = (kind) => {
      const limits = getRanges(kind).flat();
      return limits.length && [Math.min(...limits), Math.max(...limits)];
    };
    const isSigned = loaded.a.layer.signed || loaded.b.layer.signed;
    const colours = state.a.colours === "auto" && isSigned ? "diverging" : state.a.colours;
    const kinds = Object.keys(convatlas.VIEW_KINDS);
    return { colours, linkedRanges: Object.fromEntries(kinds.map((kind) => [kind, joinRanges(kind)])) };
  }

  function showError(message) {
    getPart("error").textContent = message;
    getPart("error").hidden = !message;
  }

  for (const [name, titles] of [["scale", convatlas.SCALES], ["colours", convatlas.COLOURS]]) {
    getPart(name).append(...Object.entries(titles).map(([value, title]) => new Option(title, value)));
    getPart(name).addEventListener("change", ({ target }) =>
      changeState({ a: { ...state.a, [name]: target.value }, b: { ...state.b, [name]: target.value } }));
  }
  getPart("linked").addEventListener("change", ({ target }) => changeState({ linked: target.checked }));
  getPart("swap").addEventListener("click", () => changeState({ a: state.b, b: state.a }));
  addEventListener("hashchange", () => {
    if (location.hash === formatAddress(state)) return; // written by this script
    showError("");
    draw(readAddress());
  });
  let width = 0;
  new ResizeObserver(() => {
    if (state && width !== page.clientWidth) draw(state);
    width = page.clientWidth;
  }).observe(page);
  getPart("sides").hidden = false;
  draw(readAddress());
})();
