"use strict";

/* The statistics of one unit over the data set: numbers, its top-activating images, and for the projected units a
   mosaic of deconvnet projections and image patches, which is loaded when it becomes visible. */

(() => {
  const { formatNumber, formatPercent, formatShape, onVisible } = convatlas;
  const MAX_WIDTH = 640; // pixels of a mosaic on the page

  /* The elements for a unit; none for a layer without statistics. */
  function renderStatistics({ net, layer, data }, unit) {
    if (!data.dataset_pass) return [];
    const { dataset_pass: dataset } = net;
    const { dataset_pass: statistics } = data;
    const title = `${dataset.images.toLocaleString("en")} ${dataset.split} images of ${dataset.dataset}`;
    const elements = [makeElement("p", { class: "title" }, title),
      makeElement("p", { class: "description" }, describeStatistics(dataset, statistics, unit))];
    const isProjected = layer.top_activations && layer.top_activations.units.includes(unit);
    elements.push(convatlas.renderUnitTopImages(net.name, layer.name, unit));
    if (isProjected) elements.push(renderMosaic(net, layer, unit));
    return [makeElement("div", { class: "dataset-statistics", role: "group", "aria-label": title }, ...elements)];
  }

  function describeStatistics(dataset, statistics, unit) {
    const sentences = [];
    if (statistics.dead.includes(unit)) sentences.push("Dead: never positive.");
    const { mean, std, max, zero_fraction: zeroFraction, selectivity } = statistics;
    if (mean[unit] === null) sentences.push("NaN or infinite on some images.");
    sentences.push(`Mean ${formatNumber(mean[unit])}, std ${formatNumber(std[unit])},`,
      `max ${formatNumber(max[unit])}, ${formatPercent(zeroFraction[unit])} zero.`);
    if (statistics.top_class && statistics.top_class_mean[unit] !== null) {
      const className = dataset.classes[statistics.top_class[unit]];
      const classMean = formatNumber(statistics.top_class_mean[unit]);
      const source = dataset.class_source === "label" ? "" : ", predicted classes";
      sentences.push(`Class with the largest mean: ${className} (${classMean}${source}).`);
    }
    if (selectivity[unit] !== null) sentences.push(`Class selectivity ${formatNumber(selectivity[unit])}.`);
    return sentences.join(" ");
  }

  function renderMosaic(net, layer, unit) {
    const { top_activations: sprites } = layer;
    const [height, width] = sprites.tile_size;
    const index = sprites.units.indexOf(unit);
    const tilesPerSheet = sprites.columns * sprites.rows;
    const sheet = Math.floor(index / tilesPerSheet);
    const x = (index % sprites.columns) * width;
    const y = Math.floor((index % tilesPerSheet) / sprites.columns) * height;
    const label = `Unit ${unit} of ${layer.name}; left: deconvnet projections of its top activations, `
      + "right: image patches";
    const canvas = makeElement("canvas", { role: "img", "aria-label": label, width, height });
    canvas.style.width = `${width * Math.max(1, Math.floor(MAX_WIDTH / width))}px`;
    const colours = sprites.rgb ? "grey = 0" : "white = 0, red > 0, blue < 0";
    const caption = `Projections, ${colours}, range ±${formatNumber(sprites.max_abs[index])}, and `
      + `${formatShape(sprites.patch_size)} image patches`;
    const figure = makeElement("figure", { class: "mosaic" }, makeElement("figcaption", {}, caption), canvas);
    onVisible(figure, async () => {
      const stem = `explorer/${net.name}/strongest/${layer.slug}${sheet ? `.${sheet + 1}` : ""}`;
      const [image] = await convatlas.loadImages({ paths: [`${stem}.${sprites.suffix}`] });
      canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, width, height);
    });
    return figure;
  }

  convatlas.renderStatistics = renderStatistics;
})();
