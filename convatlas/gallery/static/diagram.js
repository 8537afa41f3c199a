"use strict";

/* The diagrams of a network: the inside of a block opens below the diagram of the network, level by level, with the
   way to it above; the address `#block-layer1.0` opens it, too. Diagrams are zoomed by buttons, Ctrl + wheel or two
   fingers, and moved by dragging. Their maps are those of the image that the explorer shows. */

(() => {
  const MAX_ZOOM = 6;
  const ZOOM_STEP = 1.4;

  class NetworkDiagram {
    constructor(root) {
      this.root = root;
      this.levels = [...root.querySelectorAll("details.level")];
      const data = root.querySelector(".diagram-data");
      this.data = data ? JSON.parse(data.textContent) : { images: {}, layers: [] };
      root.classList.add("interactive");
      for (const view of root.querySelectorAll(".diagram-view")) new ZoomView(view);
      this.path = makeElement("nav", { class: "path", "aria-label": "Blocks around this diagram" });
      const heading = root.querySelector(".levels-heading");
      if (heading) heading.replaceWith(this.path);
      this.openFromAddress();
      addEventListener("hashchange", () => this.openFromAddress());
      root.addEventListener("click", (event) => this.onClick(event));
      document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && root.contains(document.activeElement)) this.goUp();
      });
      // The image of the page's result, until another is chosen there or in the explorer.
      let isInitial = !location.hash.includes("image=");
      document.addEventListener("convatlas-image", (event) => {
        if (!isInitial) this.showImage(event.detail);
        isInitial = false;
      });
      document.querySelectorAll(".result input[type=radio]").forEach((radio) =>
        radio.addEventListener("change", () => this.showImage(radio.value)));
      const [first] = Object.keys(this.data.images).filter((name) => this.isShown(name));
      if (first) this.showImage(first);
    }

    // The insides of blocks

    /* Open the level that the address names. An empty address closes it; the addresses of other parts of the page,
       such as the explorer's, leave it as it is. */
    openFromAddress() {
      let anchor = location.hash.slice(1);
      try {
        anchor = decodeURIComponent(anchor);
      } catch {
        return; // a truncated address
      }
      const level = this.levels.find((candidate) => candidate.querySelector(".diagram-view").id === anchor);
      if (level) this.open(level);
      else if (!anchor) this.close();
    }

    open(level) {
      this.close();
      const way = [];
      for (let outer = level; outer; outer = outer.parentElement.closest("details.level")) way.unshift(outer);
      way.forEach((outer) => { outer.open = true; });
      level.classList.add("current");
      this.root.classList.add("opened");
      for (const outer of way) {
        const { id } = outer.querySelector(".diagram-view");
        for (const link of this.root.querySelectorAll("a.opens")) {
          if (link.getAttribute("href") === `#${id}`) link.setAttribute("aria-current", "true");
        }
      }
      this.showWay(way);
      if (this.isChosen) setTimeout(() => this.path.querySelector("strong")?.focus({ preventScroll: true }));
      this.isChosen = false;
      const { top, bottom } = level.getBoundingClientRect();
      if (bottom > innerHeight || top < 0) this.path.scrollIntoView({ block: "nearest" });
    }

    close() {
      this.root.classList.remove("opened");
      this.levels.forEach((level) => level.classList.remove("current"));
      this.root.querySelectorAll("[aria-current]").forEach((link) => link.removeAttribute("aria-current"));
      this.path.replaceChildren();
    }

    /* Show the way to a level as links, the level itself as text, and a button that closes it. */
    showWay(way) {
      const steps = way.map((level, n) => {
        const { id, dataset } = level.querySelector(".diagram-view");
        const isLast = n === way.length - 1;
        return makeElement("li", {}, isLast ? makeElement("strong", { tabindex: "-1" }, dataset.label)
          : makeElement("a", { href: `#${id}` }, dataset.label));
      });
      const first = makeElement("li", {}, makeElement("button", { type: "button", click: () => this.leave() },
        this.root.dataset.network));
      const { title } = way.at(-1).querySelector(".diagram-view").dataset;
      this.path.replaceChildren(
        makeElement("ol", {}, first, ...steps), makeElement("p", { class: "fine" }, title),
        makeElement("button", { type: "button", class: "close", click: () => this.leave() }, "Close"));
    }

    leave() {
      this.close();
      if (location.hash.startsWith("#block-")) history.pushState(null, "", location.pathname + location.search);
      this.root.querySelector(".diagram-view").scrollIntoView({ block: "nearest" });
    }

    goUp() {
      this.isChosen = true;
      const links = [...this.path.querySelectorAll("a")];
      if (links.length) location.hash = links.at(-1).getAttribute("href");
      else if (this.root.classList.contains("opened")) this.leave();
    }

    onClick(event) {
      const link = event.target.closest("a[href]");
      const href = link && link.getAttribute("href");
      if (!href) return;
      this.isChosen = href.startsWith("#block-"); // and the focus follows, which the browser else takes away
      if (href.startsWith("#block-") && href === location.hash) this.openFromAddress(); // it was closed
      if (href.startsWith("#layer=")) {
        const explorer = document.getElementById("explorer");
        if (explorer) setTimeout(() => explorer.scrollIntoView());
      }
    }

    // The maps of the chosen image

    isShown(name) {
      const image = this.root.querySelector(".diagram-maps image");
      return image && image.getAttribute("href") === this.data.images[name].file;
    }

    /* Show the maps and the result of an image, and let each map lead to its unit in the explorer. */
    showImage(name) {
      const image = this.data.images[name];
      if (!image) return;
      if (!this.isShown(name)) this.root.querySelector(".diagram-maps image").setAttribute("href", image.file);
      const caption = document.querySelector("[data-part=\"diagram-image\"]");
      if (caption) caption.textContent = name;
      for (const node of this.root.querySelectorAll(".node.output")) {
        node.querySelectorAll(".result").forEach((text, n) => { text.textContent = image.result[n] || ""; });
      }
      if (!document.getElementById("explorer")) return;
      for (const link of this.root.querySelectorAll(".node a:not(.opens)")) {
        const map = link.querySelector("rect[fill]");
        const tile = map && Number(map.getAttribute("fill").match(/\d+(?=\))/)[0]);
        const layer = map && this.data.layers[tile];
        if (!layer) continue;
        const unit = image.units[tile];
        const state = { layer, ...(unit < 0 ? {} : { unit }), image: name };
        link.setAttribute("href", `#${Object.entries(state).map(([key, value]) =>
          `${key}=${encodeURIComponent(value)}`).join("&")}`);
      }
    }
  }

  /* A diagram that is enlarged within its frame. */
  class ZoomView {
    constructor(view) {
      this.view = view;
      this.zoom = 1;
      const addButton = (label, text, factor) =>
        makeElement("button", { type: "button", "aria-label": label, title: label, click: () => this.scale(factor) }, text);
      this.tools = makeElement("div", { class: "zoom-tools" }, addButton("Zoom out", "−", 1 / ZOOM_STEP),
        addButton("Zoom in", "+", ZOOM_STEP), addButton("Fit to the page", "Fit", 0));
      view.before(this.tools);
      view.addEventListener("wheel", (event) => {
        if (!event.ctrlKey) return;
        event.preventDefault();
        this.scale(event.deltaY < 0 ? 1.15 : 1 / 1.15, event);
      }, { passive: false });
      this.addTouch();
      this.addDragging();
    }

    /* Enlarge by a factor about a point of the window, or about the middle; 0 fits the diagram to the page. */
    scale(factor, point = null) {
      const before = this.zoom;
      this.zoom = Math.max(1, Math.min(MAX_ZOOM, factor ? before * factor : 1));
      const box = this.view.getBoundingClientRect();
      const x = point ? point.clientX - box.left : box.width / 2;
      const y = point ? point.clientY - box.top : box.height / 2;
      const ratio = this.zoom / before;
      for (const svg of this.view.querySelectorAll("svg.diagram")) {
        const width = svg.getBoundingClientRect().width;
        if (!width) continue; // that of the other orientation
        svg.style.maxWidth = this.zoom > 1 ? "none" : "";
        svg.style.width = this.zoom > 1 ? `${width * ratio}px` : "";
      }
      this.view.classList.toggle("zoomed", this.zoom > 1);
      this.view.scrollLeft = (this.view.scrollLeft + x) * ratio - x;
      this.view.scrollTop = (this.view.scrollTop + y) * ratio - y;
      if (this.zoom > 1) this.view.setAttribute("tabindex", "0"); // so that the arrow keys move it
      else this.view.removeAttribute("tabindex");
    }

    addTouch() {
      let distance = 0;
      const measure = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      this.view.addEventListener("touchstart", (event) => {
        if (event.touches.length === 2) distance = measure(event.touches);
      }, { passive: true });
      this.view.addEventListener("touchmove", (event) => {
        if (event.touches.length !== 2 || !distance) return;
        event.preventDefault();
        const [a, b] = event.touches;
        const next = measure(event.touches);
        this.scale(next / distance, { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
        distance = next;
      }, { passive: false });
    }

    /* Move an enlarged diagram with the mouse; touch screens scroll it. */
    addDragging() {
      let start = null;
      this.view.addEventListener("pointerdown", (event) => {
        if (event.pointerType !== "mouse" || this.zoom === 1 || event.target.closest("a")) return;
        start = [event.clientX + this.view.scrollLeft, event.clientY + this.view.scrollTop];
        this.view.setPointerCapture(event.pointerId);
      });
      this.view.addEventListener("pointermove", (event) => {
        if (!start) return;
        this.view.scrollLeft = start[0] - event.clientX;
        this.view.scrollTop = start[1] - event.clientY;
      });
      for (const name of ["pointerup", "pointercancel"]) this.view.addEventListener(name, () => { start = null; });
    }
  }

  document.querySelectorAll(".network-diagram").forEach((root) => new NetworkDiagram(root));
})();
