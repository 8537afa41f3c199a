/* One window's sum, at whatever place the reader moves the window to: by a click on either picture, by the
   arrow keys on them, or by the buttons. The page itself, without this script, has the sum at one place.
   The numbers are in the page, as JSON: a source (channels, rows, columns), a kernel (channels, k, k), a
   bias, the map that was made, and how its cells lie on the source. */
(() => {
  "use strict";

  const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

  function written(value, decimals) {
    const text = value.toFixed(decimals);
    return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
  }

  const bracketed = (text) => (text.startsWith("−") ? `(${text})` : text);

  function setUp(box) {
    const given = JSON.parse(document.getElementById(box.dataset.numbers).textContent);
    const { source, kernel, bias, made, down, across, decimals } = given;
    const part = (name) => box.querySelector(`[data-part="${name}"]`);
    const recorded = document.querySelector(`[data-made="${box.dataset.numbers}"]`);
    const heaviest = Math.max(...kernel.flat(2).map(Math.abs));
    let place = given.place;

    // What lies under the kernel's cell (i, j) of a channel; null beyond the source.
    function under(channel, i, j) {
      const row = down.start + down.step * place[0] + down.dilation * i;
      const column = across.start + across.step * place[1] + across.dilation * j;
      const value = source[channel][row]?.[column];
      return value === undefined ? null : value;
    }

    function pixel(cell, value, [factor, offset]) {
      cell.textContent = value === null ? "0" : written(value, decimals.source);
      const grey = Math.round(255 * Math.min(Math.max(factor * value + offset, 0), 1));
      cell.className = value === null ? "outside" : grey >= 118 ? "bright" : "dark";
      cell.style.setProperty("--grey", grey);
    }

    function signed(cell, value, most) {
      cell.textContent = written(value, decimals.product);
      cell.className = value < 0 ? "minus" : "plus";
      cell.style.setProperty("--share", Math.abs(value) / (most || 1));
    }

    function framed(picture, tall, wide, axes) {
      const frame = picture.querySelector(".window").style;
      const [top, height, left, width] = axes;
      frame.top = `${(100 * top) / tall}%`;
      frame.height = `${(100 * height) / tall}%`;
      frame.left = `${(100 * left) / wide}%`;
      frame.width = `${(100 * width) / wide}%`;
    }

    function draw() {
      const values = kernel.map((rows, c) => rows.map((row, i) => row.map((_, j) => under(c, i, j))));
      const products = kernel.map((rows, c) => rows.map((row, i) => row.map((w, j) => w * (values[c][i][j] ?? 0))));
      const most = Math.max(...products.flat(2).map(Math.abs));
      box.querySelectorAll(".product").forEach((line, c) => {
        line.querySelectorAll(".pixels td").forEach((cell, n) => pixel(cell, values[c].flat()[n], given.shade[c]));
        line.querySelectorAll(".products td").forEach((cell, n) => signed(cell, products[c].flat()[n], most));
      });
      const sums = products.map((rows) => rows.flat().reduce((sum, value) => sum + value, 0));
      const total = sums.reduce((sum, value) => sum + value, bias);
      const terms = kernel.flat(2).length <= 9 ? products.flat(2) : sums;
      const words = terms.map((value) => bracketed(written(value, decimals.total)));
      if (bias) words.push(`${bracketed(written(bias, decimals.total))} (bias)`);
      const strong = document.createElement("strong");
      strong.textContent = written(total, decimals.total);
      part("sum").replaceChildren(`${words.join(" + ").replace(/^\((.*?)\)/, "$1")} = `, strong);
      const [y, x] = place;
      if (recorded) recorded.textContent = written(made[y][x], decimals.total);
      const tall = down.dilation * (kernel[0].length - 1) + 1;
      const wide = across.dilation * (kernel[0][0].length - 1) + 1;
      const start = [down.start + down.step * y, tall, across.start + across.step * x, wide];
      framed(part("source"), source[0].length, source[0][0].length, start);
      framed(part("map"), made.length, made[0].length, [y, 1, x, 1]);
      part("said").textContent = `At row ${down.first + y}, column ${across.first + x}: ${strong.textContent}.`;
    }

    function move(y, x) {
      place = [Math.min(Math.max(y, 0), made.length - 1), Math.min(Math.max(x, 0), made[0].length - 1)];
      draw();
    }

    // The cell whose window has its middle where the source was clicked, or the cell of the map itself.
    function clicked(event, name) {
      const there = event.currentTarget.querySelector("img").getBoundingClientRect();
      const share = [(event.clientY - there.top) / there.height, (event.clientX - there.left) / there.width];
      if (name === "map") return move(Math.floor(share[0] * made.length), Math.floor(share[1] * made[0].length));
      const cell = (axis, at, size, count) =>
        Math.round((at * size - axis.start - (axis.dilation * (count - 1) + 1) / 2) / axis.step);
      return move(
        cell(down, share[0], source[0].length, kernel[0].length),
        cell(across, share[1], source[0][0].length, kernel[0][0].length),
      );
    }

    for (const name of ["source", "map"]) {
      const picture = part(name);
      picture.tabIndex = 0;
      picture.setAttribute("role", "group");
      picture.setAttribute("aria-label", `${picture.querySelector("img").alt}; arrow keys move the window`);
      picture.addEventListener("click", (event) => clicked(event, name));
      picture.addEventListener("keydown", (event) => {
        const step = STEPS[event.key];
        if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        move(place[0] + step[0], place[1] + step[1]);
      });
    }
    for (const button of box.querySelectorAll("[data-step]")) {
      const [y, x] = button.dataset.step.split(" ").map(Number);
      button.addEventListener("click", () => move(place[0] + y, place[1] + x));
    }
    box.querySelector(".controls").hidden = false;
  }

  document.querySelectorAll(".worked").forEach(setUp);
})();
