"use strict";

/* The charts of a change of the image share one chosen step: of the slider, or of the pointer over a chart. The changed
   images of this step stand beside the charts. */

(() => {
  const SVG = "http://www.w3.org/2000/svg";

  for (const section of document.querySelectorAll("[data-part=invariance]")) {
    const steps = JSON.parse(section.dataset.steps);
    const slider = section.querySelector("input[type=range]");
    const output = section.querySelector("output");
    const [heading, ...cells] = section.querySelectorAll(".chosen");
    const quantities = [...section.querySelectorAll(".quantity")].map(addReadout);
    const charts = [...section.querySelectorAll(".line-chart svg")];
    const positions = readPositions(section, steps.length);
    const cursors = charts.map((chart) => {
      const line = document.createElementNS(SVG, "path");
      line.setAttribute("class", "cursor");
      chart.append(line);
      return line;
    });

    function choose(step) {
      slider.value = step;
      output.textContent = heading.textContent = steps[step];
      slider.setAttribute("aria-valuetext", steps[step]);
      for (const cell of cells) {
        const image = cell.querySelector("svg");
        const [, top, width, height] = image.getAttribute("viewBox").split(" ");
        image.setAttribute("viewBox", [step * width, top, width, height].join(" "));
        const label = image.getAttribute("aria-label").replace(/, [^,]*$/, `, ${steps[step]}`);
        image.setAttribute("aria-label", label);
      }
      for (const { means, readout } of quantities) {
        readout.textContent = means[step] === null ? "" : ` ${means[step].toFixed(2)}`;
      }
      for (const cursor of cursors) cursor.setAttribute("d", `M${positions[step]} 0V100`);
    }

    slider.addEventListener("input", () => choose(Number(slider.value)));
    for (const chart of charts) {
      chart.addEventListener("pointermove", (event) => {
        const box = chart.getBoundingClientRect();
        const place = (100 * (event.clientX - box.left)) / box.width;
        const distances = positions.map((position) => Math.abs(position - place));
        choose(distances.indexOf(Math.min(...distances)));
      });
    }
    for (const element of [slider.closest("label"), heading, ...cells]) element.hidden = false;
    choose(Number(slider.value));
  }

  /* Add to a chart's title the mean at the chosen step. */
  function addReadout(quantity) {
    const readout = document.createElement("output");
    quantity.querySelector("h3").append(readout);
    return { means: JSON.parse(quantity.dataset.means), readout };
  }

  /* Return the place of each step in percent of a chart's width. */
  function readPositions(section, count) {
    const values = section.dataset.positions.split(" ").map(Number);
    const [first, last] = [values[0], values[count - 1]];
    return values.map((value) => (100 * (value - first)) / (last - first || 1));
  }
})();
