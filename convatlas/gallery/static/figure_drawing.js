"use strict";

/* Figures made in the browser. A drawing is { title, width, height, items } in points; its items are pictures
   { canvas, x, y, width, height }, whose pixels stay exact, and texts { text, x, y, size, anchor, bold }. y counts
   downwards, a text's to its baseline. */

(() => {
  const FONT = "Helvetica, Arial, sans-serif";
  const PIXELS_PER_POINT = 3; // of a PNG
  // Characters of WinAnsiEncoding, that of the PDF's fonts, outside Latin-1 (ISO 32000-1, annex D); − looks like –.
  const WIN_ANSI = { "€": 0x80, "…": 0x85, "‘": 0x91, "’": 0x92, "“": 0x93, "”": 0x94, "•": 0x95, "–": 0x96, "−": 0x96, "—": 0x97 };

  const ruler = document.createElement("canvas").getContext("2d");
  const formatFont = ({ size, bold }) => `${bold ? "bold " : ""}${size}px ${FONT}`;

  /* The width of a text item in points. */
  function measureText(item) {
    ruler.font = formatFont(item);
    return ruler.measureText(item.text).width;
  }

  /* Break a text into lines that are at most `width` points wide. */
  function wrapText(text, size, width) {
    const lines = [""];
    for (const word of text.split(" ")) {
      const line = `${lines.at(-1)} ${word}`.trim();
      if (lines.at(-1) && measureText({ text: line, size }) > width) lines.push(word);
      else lines[lines.length - 1] = line;
    }
    return lines;
  }

  /* The left end of a text item. */
  const getLeft = (item) => item.x - { start: 0, middle: 0.5, end: 1 }[item.anchor || "start"] * measureText(item);

  // PNG

  function drawItem(context, item) {
    if (item.canvas) {
      context.imageSmoothingEnabled = false;
      context.drawImage(item.canvas, item.x, item.y, item.width, item.height);
      return;
    }
    context.font = formatFont(item);
    context.fillStyle = "#000";
    context.fillText(item.text, getLeft(item), item.y);
  }

  function toPng({ width, height, items }) {
    const canvas = makeElement("canvas",
      { width: Math.ceil(width * PIXELS_PER_POINT), height: Math.ceil(height * PIXELS_PER_POINT) });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(PIXELS_PER_POINT, PIXELS_PER_POINT);
    items.forEach((item) => drawItem(context, item));
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  // SVG

  function toSvg({ title, width, height, items }) {
    const children = items.map((item) => (item.canvas
      ? makeSvgElement("image", { x: item.x, y: item.y, width: item.width, height: item.height,
        preserveAspectRatio: "none", style: "image-rendering: pixelated", href: item.canvas.toDataURL("image/png") })
      : makeSvgElement("text", { x: item.x, y: item.y, "font-size": item.size, "text-anchor": item.anchor || "start",
        "font-weight": item.bold ? "bold" : "normal" }, item.text)));
    const svg = makeSvgElement("svg", { width: `${width}pt`, height: `${height}pt`, viewBox: `0 0 ${width} ${height}`,
      "font-family": FONT }, makeSvgElement("title", {}, title),
    makeSvgElement("rect", { width: "100%", height: "100%", fill: "#fff" }), ...children);
    return new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" });
  }

  // PDF: one page, the standard fonts Helvetica and Helvetica-Bold, and pictures as RGB (ISO 32000-1)

  /* A string of PDF in WinAnsiEncoding; null where a character is not in it. */
  function encodeWinAnsi(text) {
    const codes = [...text].map((character) => {
      const code = character.codePointAt(0);
      return WIN_ANSI[character] || ((code >= 0x20 && code < 0x7f) || (code >= 0xa0 && code <= 0xff) ? code : null);
    });
    if (codes.includes(null)) return null;
    return codes.map((code) => (code > 0x7e || "()\\".includes(String.fromCharCode(code))
      ? `\\${code.toString(8).padStart(3, "0")}` : String.fromCharCode(code))).join("");
  }

  /* A text item as a picture, for scripts that the standard fonts lack. */
  function pictureText(item) {
    const [width, height, factor] = [Math.ceil(measureText(item)) + 1, Math.ceil(1.4 * item.size), 8];
    const canvas = makeElement("canvas", { width: width * factor, height: height * factor });
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.scale(factor, factor);
    drawItem(context, { ...item, x: 0, y: item.size, anchor: "start" });
    return { canvas, x: getLeft(item), y: item.y - item.size, width, height };
  }

  const encodeAscii = (text) => new TextEncoder().encode(text);

  async function compress(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /* A stream object, compressed where the browser can. */
  async function makeStream(entries, bytes) {
    const isCompressed = "CompressionStream" in window;
    const content = isCompressed ? await compress(bytes) : bytes;
    const filter = isCompressed ? " /Filter /FlateDecode" : "";
    return [encodeAscii(`<<${entries}${filter} /Length ${content.length} >>\nstream\n`), content,
      encodeAscii("\nendstream")];
  }

  function makeImage({ canvas }) {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const rgb = new Uint8Array((data.length / 4) * 3).map((_, n) => data[Math.floor(n / 3) * 4 + (n % 3)]);
    return makeStream(` /Type /XObject /Subtype /Image /Width ${canvas.width} /Height ${canvas.height}` +
      " /ColorSpace /DeviceRGB /BitsPerComponent 8 /Interpolate false", rgb);
  }

  const formatPoints = (...values) => values.map((value) => String(Number(value.toFixed(3)))).join(" ");

  function formatPdfItem(item, height, images) {
    if (item.canvas) {
      images.push(item);
      const y = height - item.y - item.height;
      return `q ${formatPoints(item.width, 0, 0, item.height, item.x, y)} cm /I${images.length} Do Q\n`;
    }
    const text = encodeWinAnsi(item.text);
    if (text === null) return formatPdfItem(pictureText(item), height, images);
    const position = formatPoints(getLeft(item), height - item.y);
    return `BT /${item.bold ? "B" : "F"} ${item.size} Tf ${position} Td (${text}) Tj ET\n`;
  }

  async function toPdf({ title, width, height, items }) {
    const images = [];
    const content = items.map((item) => formatPdfItem(item, height, images)).join("");
    const names = images.map((_, n) => `/I${n + 1} ${n + 8} 0 R`).join(" ");
    const hexTitle = [...Array(title.length).keys()].map((n) => title.charCodeAt(n).toString(16).padStart(4, "0")).join("");
    const font = (name) => `<< /Type /Font /Subtype /Type1 /BaseFont /${name} /Encoding /WinAnsiEncoding >>`;
    const objects = [
      "<< /Type /Catalog /Pages 2 0 R >>",
      "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
      `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 ${formatPoints(width, height)}] /Contents 7 0 R` +
        ` /Resources << /Font << /F 4 0 R /B 5 0 R >> /XObject << ${names} >> >> >>`,
      font("Helvetica"), font("Helvetica-Bold"), `<< /Title <FEFF${hexTitle}> >>`,
    ].map((text) => [encodeAscii(text)]);
    objects.push(await makeStream("", encodeAscii(content)), ...await Promise.all(images.map(makeImage)));
    return new Blob(joinObjects(objects), { type: "application/pdf" });
  }

  /* The parts of a PDF: its objects, the table of their offsets, and the trailer. */
  function joinObjects(objects) {
    const parts = [encodeAscii("%PDF-1.4\n")];
    const offsets = [];
    let size = parts[0].length;
    const append = (part) => { parts.push(part); size += part.length; };
    objects.forEach((object, n) => {
      offsets.push(size);
      [encodeAscii(`${n + 1} 0 obj\n`), ...object, encodeAscii("\nendobj\n")].forEach(append);
    });
    const rows = offsets.map((offset) => `${String(offset).padStart(10, "0")} 00000 n \n`).join("");
    parts.push(encodeAscii(`xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${rows}` +
      `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R /Info 6 0 R >>\nstartxref\n${size}\n%%EOF\n`));
    return parts;
  }

  Object.assign(convatlas, { wrapText, figureWriters: { png: toPng, svg: toSvg, pdf: toPdf }, PIXELS_PER_POINT });
})();
