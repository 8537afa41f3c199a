"use strict";

/* What the whole data set says of one unit: its statistics, and its strongest activations, of some units as
   pictures: what caused them, and beside it the images' own pixels. Loaded when they come into sight. */

(() => {
  const { make, number, share, times, count, whenSeen } = convatlas;
  const ROOM = 640; // pixels that a unit's pictures are enlarged to at most

  /* The elements that tell of a unit; none of a layer that was not followed. */
  function survey({ net, layer, told }, unit) {
    if (!told.set) return [];
    const { set } = net;
    const over = `Over the ${set.images.toLocaleString("en")} ${set.split} images of ${set.dataset}`;
    const parts = [make("p", { class: "title" }, over), make("p", { class: "words" }, words(set, told.set, unit))];
    if (layer.strongest && layer.strongest.units.includes(unit)) parts.push(pictures(net, layer, unit));
    if (told.set.values) parts.push(list(set, layer, told.set, unit));
    return [make("div", { class: "survey", role: "group", "aria-label": over }, ...parts)];
  }

  function words(set, of, unit) {
    const said = [];
    if (of.dead.includes(unit)) said.push("Dead: nowhere positive on any of them.");
    const [mean, deviation, maximum] = [of.mean, of.deviation, of.maximum].map((list) => list[unit]);
    if (mean !== null) {
      said.push(`Mean ${number(mean)}, deviation ${number(deviation)}, greatest ${number(maximum)},`,
        `${share(of.zeros[unit])} zeros.`);
    }
    if (of.class && of.response[unit] !== null) {
      const predicted = set.by === "label" ? "" : ", by predicted class";
      said.push(`Responds most to ${set.classes[of.class[unit]]} (mean ${number(of.response[unit])}${predicted}).`);
    }
    const selective = of.selectivity[unit];
    if (selective !== null) said.push(`Class selectivity ${number(selective)} of 1.`);
    return said.join(" ");
  }

  /* Where the network looked at and what it answered: one a line. */
  function list(set, layer, of, unit) {
    const lines = of.values[unit].map((value, n) => {
      if (value === null || of.images[unit][n] < 0) return null;
      const at = of.positions && Math.max(...layer.tile) > 1
        ? `, row ${of.positions[unit][n][0]}, column ${of.positions[unit][n][1]}` : "";
      return make("li", {}, make("strong", {}, number(value)), ` ${set.split} image ${of.images[unit][n]}${at}`);
    });
    return make("details", {}, make("summary", {}, `Its ${count(lines.length, "strongest activation")}, one an image`),
      make("ol", { class: "strongest" }, ...lines));
  }

  function pictures(net, layer, unit) {
    const { strongest } = layer;
    const [height, width] = strongest.tile;
    const at = strongest.units.indexOf(unit);
    const each = strongest.columns * strongest.rows;
    const sheet = Math.floor(at / each);
    const [x, y] = [(at % strongest.columns) * width, Math.floor((at % each) / strongest.columns) * height];
    const label = `Unit ${unit} of ${layer.name}: at the left what caused its strongest activations, at the right the images`;
    const canvas = make("canvas", { role: "img", "aria-label": label, width, height });
    canvas.style.width = `${width * Math.max(1, Math.floor(ROOM / width))}px`;
    const colours = strongest.colour ? "grey is zero" : "white is zero, red positive, blue negative";
    const words = `Projections, ${colours}, to ±${number(strongest.ends[at])}, and the images' ${times(strongest.patch)} pixels`;
    const figure = make("figure", { class: "mosaic" }, make("figcaption", {}, words), canvas);
    whenSeen(figure, async () => {
      const stem = `atlas/${net.name}/strongest/${layer.slug}${sheet ? `.${sheet + 1}` : ""}`;
      const [picture] = await convatlas.pictures({ paths: [`${stem}.${strongest.suffix}`] });
      canvas.getContext("2d").drawImage(picture, x, y, width, height, 0, 0, width, height);
    });
    return figure;
  }

  convatlas.survey = survey;
})();
