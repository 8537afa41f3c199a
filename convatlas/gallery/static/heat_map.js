"use strict";

/* Name the cell of a heat map under the pointer, or chosen by the arrow keys, with its number. */
for (const figure of document.querySelectorAll(".heat-map:has(pre)")) {
  const svg = figure.querySelector("svg");
  const output = figure.querySelector("output");
  const [columns, ...rows] = figure.querySelector("pre").textContent.split("\n").map((line) => line.split("\t"));
  const [width, height] = svg.dataset.cell.split(" ").map(Number);
  const cursor = makeSvgElement("rect", { class: "cursor", width, height });
  let place = null; // row and column, from 0

  const show = (row, column) => {
    place = [Math.min(Math.max(row, 0), rows.length - 1), Math.min(Math.max(column, 0), columns.length - 2)];
    const [name, ...values] = rows[place[0]];
    output.textContent = `${name} · ${columns[place[1] + 1]}: ${values[place[1]]}`;
    cursor.setAttribute("x", place[1] * width);
    cursor.setAttribute("y", place[0] * height);
    svg.append(cursor);
  };
  const hide = () => {
    cursor.remove();
    output.textContent = "";
  };
  svg.addEventListener("pointermove", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const [row, column] = [Math.floor(point.y / height), Math.floor(point.x / width)];
    if (row in rows && column >= 0 && column < columns.length - 1) show(row, column);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(...place ?? [0, 0]); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [down, right] = steps[event.key];
    const [row, column] = place ?? [0, 0];
    show(row + down, column + right);
  });
}
