"use strict";

/* The statistics of one unit over the data set: numbers, its top-activating images, and for the projected units a
   mosaic of deconvnet projections and image patches, which is loaded when it becomes visible. */

(() => {
  const { formatNumber, formatPercent, formatShape, formatCount, onVisible } = convatlas;
  const MAX_WIDTH = 640; // pixels of a mosaic on the page

  /* The elements for a unit; none for a layer without statistics. */
  function renderStatistics({ net, layer, data }, unit) {
    if (!data.dataset_pass) return [];
    const { dataset_pass: dataset } = net;
    const { dataset_pass: statistics } = data;
    const title = `${dataset.images.toLocaleString("en")} ${dataset.split} images of ${dataset.dataset}`;
    const elements = [makeElement("p", { class: "title" }, title),
      makeElement("p", { class: "description" }, describeStatistics(dataset, statistics, unit))];
    const cost = data.ablation && data.ablation[unit];
    if (cost) elements.push(makeElement("p", { class: "description" }, cost));
    const isProjected = layer.top_activations && layer.top_activations.units.includes(unit);
    elements.push(convatlas.renderUnitTopImages(net.name, layer.name, unit));
    const histogram = statistics.histogram && renderHistogram(dataset, statistics, unit);
    if (histogram) elements.push(histogram);
    if (isProjected) elements.push(renderMosaic(net, layer, unit));
    return [makeElement("div", { class: "dataset-statistics", role: "group", "aria-label": title }, ...elements)];
  }

  function describeStatistics(dataset, statistics, unit) {
    const sentences = [];
    const allImages = `all ${dataset.images.toLocaleString("en")} ${dataset.split} images`;
    if (statistics.dead.includes(unit)) sentences.push(`Dead: not positive anywhere on ${allImages}.`);
    const { mean, std, max, zero_fraction: zeroFraction, selectivity } = statistics;
    if (mean[unit] === null) sentences.push("NaN or infinite on some images.");
    sentences.push(`Mean ${formatNumber(mean[unit])}, std ${formatNumber(std[unit])},`,
      `max ${formatNumber(max[unit])}, ${formatPercent(zeroFraction[unit])} zero.`);
    const [preferredClass, effectSize] = statistics.preferred_classes[unit] || [];
    if (effectSize !== undefined) {
      const source = dataset.class_source === "label" ? "" : ", predicted classes";
      sentences.push(`Responds most to ${dataset.classes[preferredClass]} (d = ${formatNumber(effectSize)}${source}).`);
    }
    if (selectivity[unit] !== null) sentences.push(`Class selectivity ${formatNumber(selectivity[unit])}.`);
    return sentences.join(" ");
  }

  /* The histogram of a unit's values: the area of a bar is the number of values in a bin. Bins are wider away from
     zero, which is a line of its own. */
  function renderHistogram({ bin_edges: allEdges }, { histogram, zero_fraction: zeroFraction }, unit) {
    const levels = [...histogram.levels[unit]].map((level) => parseInt(level, 36));
    const last = histogram.largest[unit];
    if (!last) return null;
    const maximum = allEdges[last] ?? 2 * allEdges[last - 1];
    const isMerged = last > 10;
    const inner = allEdges.slice(isMerged ? last - 10 : 1, last);
    const edges = [0, ...inner, maximum];
    const isSigned = levels.length > edges.length - 1;
    const allBounds = isSigned ? [...edges.slice(1).reverse().map((edge) => -edge), ...edges] : edges;
    const low = isSigned ? -maximum : 0;
    const toX = (value) => (100 * (value - low)) / (maximum - low);
    const bars = levels.map((level, n) => makeSvgElement("rect", { x: toX(allBounds[n]), y: 35 - level,
      width: toX(allBounds[n + 1]) - toX(allBounds[n]), height: level }));
    const hasZeros = zeroFraction[unit] > 0;
    if (hasZeros) bars.push(makeSvgElement("rect", { class: "zero", x: toX(0), y: 0, width: 1, height: 35 }));
    const zeros = hasZeros ? `; line: ${formatPercent(zeroFraction[unit])} zero` : "";
    const title = `Histogram of ${formatCount(histogram.values, "value")}${zeros}`;
    const limits = [formatNumber(low), formatNumber(maximum)];
    const svg = makeSvgElement("svg", { viewBox: "0 0 101 35", class: "histogram", preserveAspectRatio: "none",
      role: "img", "aria-label": `${title}, from ${limits[0]} to ${limits[1]}` }, ...bars);
    return makeElement("figure", { class: "unit-histogram" }, makeElement("figcaption", {}, title), svg,
      makeElement("div", { class: "limits", "aria-hidden": "true" }, makeElement("span", {}, limits[0]),
        isSigned ? makeElement("span", {}, "0") : null, makeElement("span", {}, limits[1])));
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
