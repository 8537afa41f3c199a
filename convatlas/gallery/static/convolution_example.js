/* The convolution at one position, which the reader moves: by a click on either image, by the arrow keys on them, or
   by the buttons. Without this script the page shows one position. The data are in the page, as JSON: the source
   (channels, rows, columns), the kernel (channels, rows, columns), the bias, the output, and how output cells map to
   the source. Arrays are lists, or bytes in base 64: levels of brightness (0..255), or integers with a number of
   decimals. `initConvolutionExample` returns a function that moves the window to (row, column). */
const initConvolutionExample = (() => {
  "use strict";

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  function formatNumber(value, decimals) {
    const text = value.toFixed(decimals);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  const parenthesize = (text) => (text.startsWith("−") ? `(${text})` : text);
  const sum = (values, start = 0) => values.reduce((total, value) => total + value, start);
  const maxAbs = (values) => Math.max(...values.map(Math.abs));

  /* Split values into rows, and into channels of rows where the shape has three sizes. */
  function reshape(values, [size, ...rest]) {
    if (!rest.length) return [...values];
    const step = values.length / size;
    return Array.from({ length: size }, (_, n) => reshape(values.slice(n * step, (n + 1) * step), rest));
  }

  function decodeArray(encoded) {
    if (Array.isArray(encoded)) return encoded;
    const bytes = Uint8Array.from(atob(encoded.base64), (character) => character.charCodeAt(0));
    return reshape(encoded.type === "int16" ? new Int16Array(bytes.buffer) : bytes, encoded.shape);
  }

  const mapValues = (rows, convert) => rows.map((row) => row.map(convert));

  /* The source of an example: levels of brightness become the values that the network saw. */
  function decodeSource({ source, brightness_scale: scale }) {
    if (Array.isArray(source)) return source;
    return decodeArray(source).map((rows, c) => mapValues(rows, (level) => (level / 255 - scale[c][1]) / scale[c][0]));
  }

  function decodeOutput({ output }) {
    const unit = 10 ** (output.decimals ?? 0);
    return mapValues(decodeArray(output), (value) => value / unit);
  }

  function initExample(box) {
    const example = JSON.parse(document.getElementById(box.dataset.source).textContent);
    const { kernel, bias, vertical, horizontal, decimals } = example;
    const [source, output] = [decodeSource(example), decodeOutput(example)];
    const getPart = (name) => box.querySelector(`[data-part="${name}"]`);
    const recorded = document.querySelector(`[data-recorded="${box.dataset.source}"]`);
    let position = example.position;

    /* The source value under kernel cell (i, j) of a channel; null outside the source. */
    function sourceValue(channel, i, j) {
      const row = vertical.start + vertical.stride * position[0] + vertical.dilation * i;
      const column = horizontal.start + horizontal.stride * position[1] + horizontal.dilation * j;
      const value = source[channel][row]?.[column];
      return value === undefined ? null : value;
    }

    function updatePixelCell(cell, value, [factor, offset]) {
      cell.textContent = value === null ? "0" : formatNumber(value, decimals.source);
      const grey = Math.round(255 * Math.min(Math.max(factor * value + offset, 0), 1));
      cell.className = value === null ? "outside" : grey >= 118 ? "bright" : "dark";
      cell.style.setProperty("--grey", grey);
    }

    function updateSignedCell(cell, value, max) {
      cell.textContent = formatNumber(value, decimals.product);
      cell.className = value < 0 ? "minus" : "plus";
      cell.style.setProperty("--magnitude", Math.abs(value) / (max || 1));
    }

    /* Place the frame on a picture of `rows` × `columns` pixels; its position and size are in these pixels. */
    function placeFrame(picture, rows, columns, [top, height, left, width]) {
      const frame = picture.querySelector(".window").style;
      frame.top = `${(100 * top) / rows}%`;
      frame.height = `${(100 * height) / rows}%`;
      frame.left = `${(100 * left) / columns}%`;
      frame.width = `${(100 * width) / columns}%`;
    }

    function draw() {
      const patch = kernel.map((rows, c) => rows.map((row, i) => row.map((_, j) => sourceValue(c, i, j))));
      const products = kernel.map((rows, c) =>
        rows.map((row, i) => row.map((weight, j) => weight * (patch[c][i][j] ?? 0))));
      const maxProduct = maxAbs(products.flat(2));
      box.querySelectorAll(".product").forEach((line, c) => {
        line.querySelectorAll(".pixels td").forEach((cell, n) =>
          updatePixelCell(cell, patch[c].flat()[n], example.brightness_scale[c]));
        line.querySelectorAll(".products td").forEach((cell, n) =>
          updateSignedCell(cell, products[c].flat()[n], maxProduct));
      });
      const total = drawSum(products);
      const [y, x] = position;
      if (recorded) recorded.textContent = formatNumber(output[y][x], decimals.total);
      const height = vertical.dilation * (kernel[0].length - 1) + 1;
      const width = horizontal.dilation * (kernel[0][0].length - 1) + 1;
      const top = vertical.start + vertical.stride * y;
      const left = horizontal.start + horizontal.stride * x;
      placeFrame(getPart("source"), source[0].length, source[0][0].length, [top, height, left, width]);
      placeFrame(getPart("map"), output.length, output[0].length, [y, 1, x, 1]);
      const [row, column] = [vertical.first_output + y, horizontal.first_output + x];
      getPart("status").textContent = `At row ${row}, column ${column}: ${total}.`;
    }

    /* Write the sum of the products, or of the channels' sums for large kernels, and the bias; returns the total.
       Channels whose products are not shown have one sum. */
    function drawSum(products) {
      const channelSums = products.map((rows) => sum(rows.flat()));
      const shown = box.querySelectorAll(".product").length;
      const terms = kernel.flat(2).length <= 9 ? products.flat(2) : channelSums.slice(0, shown);
      const texts = terms.map((value) => parenthesize(formatNumber(value, decimals.total)));
      if (shown < kernel.length) {
        const others = parenthesize(formatNumber(sum(channelSums.slice(shown)), decimals.total));
        texts.push(`${others} (${kernel.length - shown} other channels)`);
      }
      if (bias) texts.push(`${parenthesize(formatNumber(bias, decimals.total))} (bias)`);
      const total = document.createElement("strong");
      total.textContent = formatNumber(sum(channelSums, bias), decimals.total);
      getPart("sum").replaceChildren(`${texts.join(" + ").replace(/^\((.*?)\)/, "$1")} = `, total);
      return total.textContent;
    }

    function move(y, x) {
      const clip = (value, size) => Math.min(Math.max(value, 0), size - 1);
      position = [clip(y, output.length), clip(x, output[0].length)];
      draw();
    }

    /* Move to the clicked cell of the output, or to the cell whose window is centred on the clicked source pixel. */
    function onClick(event, name) {
      const area = event.currentTarget.querySelector("img").getBoundingClientRect();
      const [y, x] = [(event.clientY - area.top) / area.height, (event.clientX - area.left) / area.width];
      if (name === "map") return move(Math.floor(y * output.length), Math.floor(x * output[0].length));
      const toCell = (axis, fraction, size, kernelSize) =>
        Math.round((fraction * size - axis.start - (axis.dilation * (kernelSize - 1) + 1) / 2) / axis.stride);
      return move(
        toCell(vertical, y, source[0].length, kernel[0].length),
        toCell(horizontal, x, source[0][0].length, kernel[0][0].length),
      );
    }

    for (const name of ["source", "map"]) {
      const picture = getPart(name);
      picture.tabIndex = 0;
      picture.setAttribute("role", "group");
      picture.setAttribute("aria-label", `${picture.querySelector("img").alt}; arrow keys move the window`);
      picture.addEventListener("click", (event) => onClick(event, name));
      picture.addEventListener("keydown", (event) => {
        const step = STEPS[event.key];
        if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        move(position[0] + step[0], position[1] + step[1]);
      });
    }
    for (const button of box.querySelectorAll("[data-step]")) {
      const [y, x] = button.dataset.step.split(" ").map(Number);
      button.addEventListener("click", () => move(position[0] + y, position[1] + x));
    }
    box.querySelector(".controls")?.removeAttribute("hidden");
    return move;
  }

  return initExample;
})();

document.querySelectorAll(".convolution-example").forEach((box) => initConvolutionExample(box));
