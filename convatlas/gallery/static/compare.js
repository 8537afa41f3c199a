"use strict";

/* Any two units side by side, each with its network, layer and image. The address has both,
   `#a=network%3Dlenet5%26layer%3Dconv1...&b=...`, each in the form of the explorer's own. */

(() => {
  const { make, times } = convatlas;
  const given = convatlas.embedded("compare-data");
  const page = document.querySelector(".comparison");
  const part = (name) => page.querySelector(`[data-part="${name}"]`);
  const USUAL = convatlas.USUAL;
  let state = null; // { a, b, linked }
  let turn = 0;
  let waiting = 0;

  class Side {
    constructor(key) {
      this.key = key;
      const place = part(key);
      const field = (label, control) => make("label", { class: "field" }, make("span", {}, label), control);
      this.network = make("select", { change: () => this.choose({ network: this.network.value }) },
        ...given.networks.map((name) => new Option(name)));
      this.layer = make("select", { change: () => this.choose({ layer: this.layer.value }) });
      this.image = make("select", { change: () => this.choose({ image: this.image.value }) });
      const nearest = (value) => Math.max(0, Math.min(this.unit.max, Math.round(value) || 0));
      this.unit = make("input", { type: "number", min: 0, inputmode: "numeric",
        change: () => this.choose({ unit: nearest(this.unit.value) }) });
      this.facts = make("p", { class: "fine" });
      this.link = make("a", {}, "In its network");
      const fields = { Network: this.network, Layer: this.layer, Unit: this.unit, Image: this.image };
      const labelled = Object.entries(fields).map(([label, control]) => field(label, control));
      place.append(make("div", { class: "fields" }, ...labelled), this.facts);
      this.panel = new convatlas.Panel(place, (change, stepping) => this.choose(change, stepping));
      place.append(make("p", { class: "fine" }, this.link));
    }

    /* Take a change; another network is begun where its own page would. */
    choose(change, stepping = false) {
      const mine = state[this.key];
      if ("step" in change) {
        const units = Number(this.unit.max) + 1;
        return go({ [this.key]: { ...mine, unit: (mine.unit + change.step + units) % units } }, true);
      }
      const other = this.key === "a" ? "b" : "a";
      const both = "overlay" in change ? { overlay: change.overlay } : {};
      const kept = change.network ? { scale: mine.scale, colours: mine.colours } : mine;
      const next = { ...kept, ...change };
      const layer = this.offered.layers.find(({ name }) => name === next.layer);
      if (layer && next.unit >= layer.units) next.unit = null; // of the layer before
      return go({ [this.key]: next, [other]: { ...state[other], ...both } }, stepping);
    }

    /* Fill the choices for what is shown now. */
    offer({ net, layer }) {
      const mine = state[this.key];
      this.network.value = net.name;
      if (this.offered !== net) {
        this.offered = net;
        const groups = new Map();
        for (const { name, stage } of net.layers) {
          if (!groups.has(stage)) groups.set(stage, make("optgroup", { label: stage }));
          groups.get(stage).append(new Option(name));
        }
        this.layer.replaceChildren(...groups.values());
        this.image.replaceChildren(...net.images.map(({ name }) => new Option(name)));
      }
      this.layer.value = layer.name;
      this.image.value = mine.image;
      this.unit.max = layer.units - 1;
      this.unit.value = mine.unit;
      const kernel = layer.kernel ? ` ${times(layer.kernel)}` : "";
      const field = layer.receptive_field ? `, receptive field ${times(layer.receptive_field)}` : "";
      this.facts.textContent = `${layer.type}${kernel}, ${times(layer.shape)}${field}`;
      const there = convatlas.address(mine, { ...USUAL, scale: null }); // the page may begin with another
      this.link.href = `${convatlas.place(`networks/${net.name}.html`)}#${there}`;
    }
  }

  const sides = { a: new Side("a"), b: new Side("b") };

  /* As in the explorer: what is chosen can be taken back, and while somebody steps the address waits. */
  function go(change, stepping = false) {
    const next = { ...state, ...change };
    clearTimeout(waiting);
    if (!stepping) {
      location.hash = addressed(next); // which draws
      return;
    }
    state = next;
    waiting = setTimeout(() => location.replace(addressed(state)), 200);
    draw(state);
  }

  function addressed({ a, b, linked }) {
    const [first, second] = [a, b].map((one) => convatlas.address(one, USUAL, true));
    return `#${convatlas.write({ a: first, b: second, linked: linked ? null : "no" })}`;
  }

  /* Read the address; what it does not say is as the first network's page would begin. */
  async function understood() {
    const found = convatlas.read(location.hash);
    const read = async (text) => {
      const said = convatlas.read(text || "");
      const name = given.networks.includes(said.network) ? said.network : given.networks[0];
      const net = await convatlas.network(name);
      const there = convatlas.understood(net, said, USUAL);
      const absent = convatlas.absent(net, said);
      if (absent) trouble(`There is ${absent} in ${name}. The page shows another.`);
      return there || convatlas.understood(net, {}, USUAL);
    };
    const a = await read(found.a);
    const b = found.b ? await read(found.b) : await beside(a);
    return { a, b, linked: found.linked !== "no" };
  }

  /* What a unit is set beside where nothing is said: itself on another image. */
  async function beside(a) {
    const { images } = await convatlas.network(a.network);
    const at = images.findIndex(({ name }) => name === a.image);
    return { ...a, image: images[(at + 1) % images.length].name };
  }

  async function draw(wanted) {
    const mine = ++turn;
    page.setAttribute("aria-busy", "true");
    try {
      const read = await wanted;
      const seen = { a: await convatlas.look(read.a), b: await convatlas.look(read.b) };
      if (mine !== turn) return;
      state = read;
      for (const key of ["a", "b"]) if (state[key].unit === null) state[key].unit = 0;
      const shared = state.linked ? linked(seen) : {};
      part("linked").checked = state.linked;
      for (const key of ["scale", "colours"]) part(key).value = state.a[key];
      for (const [key, side] of Object.entries(sides)) {
        side.offer(seen[key]);
        await side.panel.show({ ...state[key], ...shared }, [part(key).clientWidth, 420]);
      }
    } catch (error) {
      if (mine === turn) trouble(error.message);
    } finally {
      if (mine === turn) page.removeAttribute("aria-busy");
    }
  }

  /* One span over both units by the kind of view, and colours that diverge where either is signed. */
  function linked(seen) {
    const spans = (kind) => ["a", "b"].map((key) => {
      const { net, layer, told } = seen[key];
      if (!convatlas.kinds(layer).includes(kind)) return null;
      return convatlas.span(net, layer, told, kind, state[key].scale, state[key].unit);
    }).filter((span) => span && span.every(Number.isFinite));
    const over = (kind) => {
      const there = spans(kind).flat();
      return there.length && [Math.min(...there), Math.max(...there)];
    };
    const isSigned = seen.a.layer.signed || seen.b.layer.signed;
    const colours = state.a.colours === "auto" && isSigned ? "diverging" : state.a.colours;
    return { colours, linked: Object.fromEntries(Object.keys(convatlas.KINDS).map((kind) => [kind, over(kind)])) };
  }

  function trouble(message) {
    part("trouble").textContent = message;
    part("trouble").hidden = !message;
  }

  for (const [name, words] of [["scale", convatlas.SCALES], ["colours", convatlas.COLOURS]]) {
    part(name).append(...Object.entries(words).map(([value, word]) => new Option(word, value)));
    part(name).addEventListener("change", ({ target }) =>
      go({ a: { ...state.a, [name]: target.value }, b: { ...state.b, [name]: target.value } }));
  }
  part("linked").addEventListener("change", ({ target }) => go({ linked: target.checked }));
  part("swap").addEventListener("click", () => go({ a: state.b, b: state.a }));
  addEventListener("hashchange", () => {
    if (location.hash === addressed(state)) return; // where we went ourselves
    trouble("");
    draw(understood());
  });
  let width = 0;
  new ResizeObserver(() => {
    if (state && width !== page.clientWidth) draw(state);
    width = page.clientWidth;
  }).observe(page);
  part("sides").hidden = false;
  draw(understood());
})();
