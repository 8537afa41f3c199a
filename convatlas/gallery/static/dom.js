"use strict";

/* Helpers for elements and gestures, used by the other scripts. */

/* Make an HTML element. Functions among the attributes are event listeners; true sets an empty attribute; false and
   null set none. Data become attributes and text nodes only, so that no name can be markup. */
function makeElement(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function makeSvgElement(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
  element.append(...children);
  return element;
}

/* Call `callback` with 1 for a swipe to the left over an element, -1 for one to the right; vertical swipes scroll. */
function onSwipe(element, callback) {
  let start = null;
  element.addEventListener("touchstart", (event) => {
    const [touch, second] = event.touches;
    start = second ? null : [touch.clientX, touch.clientY];
  }, { passive: true });
  element.addEventListener("touchend", (event) => {
    if (!start) return;
    const { clientX, clientY } = event.changedTouches[0];
    const [x, y] = [clientX - start[0], clientY - start[1]];
    if (Math.abs(x) > 40 && Math.abs(x) > 1.5 * Math.abs(y)) callback(x < 0 ? 1 : -1);
  });
}
