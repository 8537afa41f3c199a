"use strict";

/* The top-activating images of a unit over the data set: whole images, with the receptive field as a box. The page of
   top-activating images shows all units of a layer, the explorer one. The numbers come as scripts of compressed JSON:
   `index` of the network, and `part-<n>` of some of its layers. */

(() => {
  const loaded = Object.create(null); // network name -> script name -> promise of its content

  /* Called by the scripts. */
  function registerTopImages(network, name, text) {
    loaded[network] = loaded[network] || Object.create(null);
    loaded[network][name] = convatlas.inflateJson(text);
  }

  async function loadContent(network, name) {
    const path = `top-images/${network}/${name}.js`;
    const getLoaded = () => loaded[network] && loaded[network][name];
    if (!getLoaded()) await convatlas.loadScript(path);
    if (!getLoaded()) throw new Error(`${path} is damaged. Rebuild the gallery.`);
    return getLoaded();
  }

  /* Load a network's layers and images. */
  const loadTopImages = (network) => loadContent(network, "index");

  /* Load the units of a layer: functions of a unit's number that return its top activations, those of value zero left
     out, and a note on them. */
  async function loadLayerUnits(network, index, layer) {
    const part = await loadContent(network, `part-${layer.part}`);
    const units = part.layers[layer.name];
    const [dead, nonFinite] = ["dead", "non_finite"].map((key) => new Set(units[key] || []));
    const width = layer.shape.length ? layer.shape[layer.shape.length - 1] : 1;
    const getRow = (unit) => part.values[units.rows[unit]].map((value, n) => {
      const position = part.positions[units.rows[unit]][n];
      const place = [Math.floor(position / width), position % width];
      return { value, image: part.images[units.rows[unit]][n], place };
    });
    const getPeaks = (unit) => getRow(unit).filter(({ value, image }) => value !== null && value !== 0 && image >= 0);
    const getNote = (unit) => {
      const [row, peaks] = [getRow(unit), getPeaks(unit)];
      if (dead.has(unit)) return `Dead: never positive on the ${index.n_images.toLocaleString("en")} images.`;
      if (nonFinite.has(unit)) return "NaN or infinite on some images, which are left out.";
      if (peaks.length < row.length) return `Not zero on ${convatlas.formatCount(peaks.length, "image")} only.`;
      const isTied = peaks.length > 1 && peaks.every(({ value }) => value === peaks[0].value);
      return isTied ? "Equal maxima: these are the first images of many." : "";
    };
    return { count: units.rows.length, getPeaks, getNote, marks: units.marks || {} };
  }

  /* The box of a receptive field within an image, [left, top, right, bottom] in shares of its sides; null where the
     field is all of the input, or is not known. */
  function computeFieldBox(index, layer, image, place) {
    const box = convatlas.getFieldBox(layer, place, index.input_size);
    if (!box) return null;
    const bounds = index.input_size.map((size, axis) => [box.start[axis] / size, box.end[axis] / size]);
    if (bounds.every(([first, last]) => first === 0 && last === 1)) return null;
    const [left, top, right, bottom] = image.visible || [0, 0, 1, 1]; // what the network sees of the image
    const clip = (share) => Math.max(0, Math.min(1, share));
    const [rows, columns] = [[top, bottom], [left, right]].map(([start, end], axis) =>
      bounds[axis].map((share) => clip(start + share * (end - start))));
    return [columns[0], rows[0], columns[1], rows[1]];
  }

  /* What the boxes of a layer show, as a sentence. */
  function describeFields(index, layer) {
    const { receptive_field: field, receptive_step: step } = layer;
    if (!field) return "The receptive field is not known: no box.";
    const size = field.join(" × ");
    const isCropped = Object.values(index.images).some(({ visible }) => visible);
    const crop = isCropped ? " The input is a central crop of the image." : "";
    const isInput = field.every((length, axis) => length >= index.input_size[axis]);
    if (isInput && !step) return `The receptive field is the whole input, ${size} pixels: no box.${crop}`;
    if (!step) return `Receptive field ${size} pixels, not on a regular grid: no box.`;
    return `Box: the receptive field of the maximum, ${size} pixels of the ${index.input_size.join(" × ")} input, `
      + `clipped to the input.${crop}`;
  }

  const getName = (names, number) => (number === undefined ? "" : names[number] || "");

  /* The image's class or file, the predicted class where it is another, and whether it is. */
  function describeImage(index, number) {
    const image = index.images[number] || {};
    const label = getName(index.classes, image.label);
    const isWrong = image.prediction !== undefined && image.label !== undefined && image.prediction !== image.label;
    const text = label || (image.file || "").replace(/\.[^.]+$/, "") || `image ${number}`;
    return { image, label, isWrong, text, prediction: getName(index.predicted_classes, image.prediction) };
  }

  /* The thumbnail of an image with the box of a receptive field. */
  function renderThumbnail(index, layer, peak) {
    const { image, text } = describeImage(index, peak.image);
    const alt = [text, image.subclass, `${index.split} image ${peak.image}`].filter(Boolean).join(", ");
    if (!image.thumbnail) {
      return makeElement("span", { class: "no-image" }, "no thumbnail",
        makeElement("span", { class: "visually-hidden" }, ` of ${alt}`));
    }
    const [width, height] = image.size;
    const box = computeFieldBox(index, layer, image, peak.place);
    const frame = makeElement("span", { class: `field-frame${Math.max(width, height) <= 64 ? " pixelated" : ""}` },
      makeElement("img", { src: convatlas.toUrl(image.thumbnail), alt, width, height, loading: "lazy",
        decoding: "async" }));
    if (box) frame.append(renderBox(box));
    return frame;
  }

  function renderBox([left, top, right, bottom]) {
    const box = makeElement("span", { class: "field-box", "aria-hidden": "true" });
    const toPercent = (share) => `${(100 * share).toFixed(2)}%`;
    Object.assign(box.style, { left: toPercent(left), top: toPercent(top), width: toPercent(right - left),
      height: toPercent(bottom - top) });
    return box;
  }

  /* The list of a unit's top-activating images. */
  function renderTopImages(network, index, layer, unit, peaks) {
    const items = peaks.map((peak) => {
      const { isWrong, text, prediction, image } = describeImage(index, peak.image);
      const name = makeElement("b", { class: isWrong && "wrong" }, isWrong ? `${text} → ${prediction}` : text);
      const button = makeElement("button", { type: "button", class: "thumbnail",
        click: () => showImage(network, index, layer, unit, peak) }, renderThumbnail(index, layer, peak));
      const subclass = image.subclass ? makeElement("span", { class: "subclass" }, image.subclass) : null;
      return makeElement("li", {}, button, name, subclass,
        makeElement("span", {}, convatlas.formatNumber(peak.value)));
    });
    return makeElement("ol", { class: "top-images" }, ...items);
  }

  // The enlarged image

  let dialog = null;

  function showImage(network, index, layer, unit, peak) {
    if (!dialog) {
      const close = makeElement("button", { type: "button", class: "close", click: () => dialog.close() }, "Close");
      dialog = makeElement("dialog", { class: "image-dialog", "aria-label": "Top-activating image" }, close,
        makeElement("div", { class: "content" }));
      document.body.append(dialog);
    }
    const { image } = describeImage(index, peak.image);
    const frame = renderThumbnail(index, layer, peak);
    if (image.size) frame.style.setProperty("--aspect", image.size[0] / image.size[1]);
    const facts = listFacts(network, index, layer, unit, peak).map(([term, ...values]) =>
      makeElement("div", {}, makeElement("dt", {}, term), makeElement("dd", {}, ...values)));
    dialog.querySelector(".content").replaceChildren(frame, makeElement("dl", {}, ...facts));
    dialog.showModal();
  }

  function listFacts(network, index, layer, unit, peak) {
    const { image, label, prediction, isWrong } = describeImage(index, peak.image);
    const facts = [["Image", `${index.split} image ${peak.image} of ${index.dataset}`]];
    if (image.file) facts.push(["File", image.file]);
    if (label) facts.push(["Class", image.subclass ? `${label}, ${image.subclass}` : label]);
    if (prediction) {
      const probability = ` (${convatlas.formatPercent(image.probability)})`;
      const mark = isWrong ? makeElement("b", { class: "wrong" }, " wrong") : "";
      facts.push(["Prediction", prediction + probability, mark]);
    }
    if (image.mean_iou !== undefined) facts.push(["Mean IoU", convatlas.formatNumber(image.mean_iou)]);
    const isMap = layer.shape.some((length) => length > 1);
    const [row, column] = peak.place;
    const place = layer.shape.length === 1 ? ` at position ${column}` : ` at row ${row}, column ${column}`;
    facts.push([`Unit ${unit} of ${layer.name}`, convatlas.formatNumber(peak.value) + (isMap ? place : "")]);
    facts.push(["Receptive field", describeFields(index, layer)]);
    const fileSize = image.file_size && image.file_size.join(" × ");
    const text = fileSize ? `Thumbnail (the file has ${fileSize} pixels)` : "Image at full size";
    const links = [image.thumbnail ? makeElement("a", { href: convatlas.toUrl(image.thumbnail) }, text) : null,
      image.sample && layer.explored ? makeElement("a", { href: getExplorerUrl(network, layer, unit, image.sample) },
        "This image in the explorer") : null].filter(Boolean);
    if (links.length) facts.push(["Open", ...links.flatMap((link, n) => (n ? [" · ", link] : [link]))]);
    return facts;
  }

  /* The address of a unit in the explorer. */
  const getExplorerUrl = (network, layer, unit, image = null) => {
    const state = convatlas.formatHash({ layer: layer.name, unit, image });
    return `${convatlas.toUrl(`networks/${network}.html`)}#${state}`;
  };

  const getPageUrl = (network, layer, unit) =>
    `${convatlas.toUrl(`networks/${network}-top-images.html`)}#${convatlas.formatHash({ layer: layer.name, unit })}`;

  /* The sentence on why a unit is a possible shortcut. */
  const renderMark = (reason) => makeElement("p", { class: "shortcut-mark" },
    makeElement("strong", {}, "Possible shortcut. "), reason);

  /* What the explorer's panel shows of a unit: an element that is filled when it becomes visible. */
  function renderUnit(network, layerName, unit) {
    const element = makeElement("div", { class: "unit-top-images" });
    convatlas.onVisible(element, () => fillUnit(element, network, layerName, unit));
    return element;
  }

  async function fillUnit(element, network, layerName, unit) {
    const index = await loadTopImages(network);
    const layer = index.layers.find(({ name }) => name === layerName);
    if (!layer) return; // it only rearranges values
    const units = await loadLayerUnits(network, index, layer);
    const peaks = units.getPeaks(unit);
    const note = units.getNote(unit);
    const title = makeElement("p", { class: "title" }, "Top-activating images, the strongest first. ",
      makeElement("a", { href: getPageUrl(network, layer, unit) }, "All units"));
    element.append(title, ...(units.marks[unit] ? [renderMark(units.marks[unit])] : []),
      ...(note ? [makeElement("p", { class: "fine" }, note)] : []),
      renderTopImages(network, index, layer, unit, peaks),
      makeElement("p", { class: "fine" }, describeFields(index, layer)));
  }

  Object.assign(convatlas, {
    registerTopImages, loadTopImages, loadLayerUnits, renderTopImages, renderMark, describeFields, getExplorerUrl,
    computeFieldBox, renderUnitTopImages: renderUnit,
  });
})();
