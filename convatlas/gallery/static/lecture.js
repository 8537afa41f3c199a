"use strict";

/* Lecture mode: one slide at a time, in parts, with keys, buttons and swipes. The address holds slide, part and image.
   The page has the slides of the first image; those of others are scripts that call registerSlides, because a page
   opened from a file can load nothing else. Without this script the slides stand one under another. */
const registerSlides = (() => {
  const lecture = document.querySelector(".lecture");
  const container = lecture.querySelector(".slides");
  const bar = lecture.querySelector(".lecture-bar");
  const help = lecture.querySelector(".lecture-help");
  const select = bar.querySelector("select");
  const status = lecture.querySelector("[role=status]");
  const isMotionReduced = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

  const MAX_SCAN_TIME = 3000; // milliseconds from one stop of the window to the next
  const TIME_PER_POSITION = 60;
  const PLAY_TIME = 25000; // for all positions
  const REDUCED_PLAY_INTERVAL = 2000; // between stops

  const firstImage = lecture.dataset.image;
  const fragments = { [firstImage]: Promise.resolve(container.innerHTML) }; // image -> promise of the HTML of its slides
  let state = { image: firstImage, step: 1, part: 1 };
  let slides = [];
  let scan = null; // the moving window of the convolution

  // The window of the convolution

  /* The window over a map of which positions up to the current one, in raster order, are filled in. */
  function makeScan(box) {
    const move = initConvolutionExample(box);
    const map = box.querySelector('[data-part="map"] img');
    const columns = Number(box.dataset.columns);
    const stops = box.dataset.stops.split(" ").map(Number);
    const rows = Math.ceil((stops[stops.length - 1] + 1) / columns);
    let [index, target, request, timer] = [-1, -1, 0, 0];

    function setIndex(value) {
      index = value;
      const [row, column] = [Math.floor(index / columns), index % columns];
      move(row, column);
      const [top, bottom] = [(100 * row) / rows, (100 * (row + 1)) / rows];
      const right = (100 * (column + 1)) / columns;
      map.style.clipPath =
        `polygon(0 0, 100% 0, 100% ${top}%, ${right}% ${top}%, ${right}% ${bottom}%, 0 ${bottom}%)`;
    }

    function stop() {
      cancelAnimationFrame(request);
      clearInterval(timer);
      [request, timer] = [0, 0];
      updatePlayButton();
    }

    const isMoving = () => Boolean(request || timer);

    function jumpTo(value) {
      stop();
      target = value;
      if (index !== value) setIndex(value);
    }

    /* Move to a later position in some milliseconds; then call `onEnd`. */
    function scanTo(value, duration, onEnd) {
      stop();
      target = value;
      const [from, begin] = [index, performance.now()];
      function step(now) {
        const share = duration ? Math.min(1, Math.max(0, now - begin) / duration) : 1;
        setIndex(Math.round(from + share * (value - from)));
        request = share < 1 ? requestAnimationFrame(step) : 0;
        if (!request) {
          updatePlayButton();
          if (onEnd) onEnd();
        }
      }
      request = requestAnimationFrame(step);
      updatePlayButton();
    }

    /* Show a part: its stop, reached in motion when it is the next. */
    function showPart(part, isNext) {
      const value = stops[part - 1];
      if (!isNext || isMotionReduced() || value <= index) return jumpTo(value);
      return scanTo(value, Math.min(MAX_SCAN_TIME, TIME_PER_POSITION * (value - index)));
    }

    function play() {
      const last = stops[stops.length - 1];
      if (index >= last) setIndex(0);
      if (!isMotionReduced()) {
        scanTo(last, (PLAY_TIME * (last - index)) / (last || 1), () => setPart(stops.length));
        return;
      }
      timer = setInterval(() => {
        const next = stops.findIndex((value) => value > index);
        if (next < 0) return stop();
        setIndex(stops[next]);
        return setPart(next + 1);
      }, REDUCED_PLAY_INTERVAL);
      updatePlayButton();
    }

    return {
      showPart, play, stop, isMoving,
      finish: () => jumpTo(target),
    };
  }

  const getSlide = () => slides[state.step - 1];
  const getParts = () => Number(getSlide().dataset.parts);
  const hasScan = () => Boolean(scan) && getSlide().dataset.kind === "convolution";

  function setPart(part) {
    state.part = part;
    writeAddress();
    updateBar();
  }

  // Slides

  function updatePlayButton() {
    const button = bar.querySelector('[data-action="play"]');
    button.hidden = !hasScan();
    button.textContent = hasScan() && scan.isMoving() ? "Pause" : "Play";
  }

  function updateBar() {
    bar.querySelector(".counter").textContent = `${state.step} / ${slides.length}`;
    bar.querySelector('[data-action="previous"]').disabled = state.step === 1 && state.part === 1;
    bar.querySelector('[data-action="next"]').disabled = state.step === slides.length && state.part === getParts();
    if (select) select.value = state.image;
    updatePlayButton();
  }

  const writeAddress = () => {
    const part = state.part > 1 ? `&part=${state.part}` : "";
    history.replaceState(null, "", `#step=${state.step}${part}&image=${encodeURIComponent(state.image)}`);
  };

  /* Show the current part of the current slide; `isNext` where the reader goes on to it. */
  function draw(isNext = false) {
    const slide = getSlide();
    slides.forEach((other) => other.classList.toggle("current", other === slide));
    for (const element of slide.querySelectorAll("[data-appears]")) {
      element.classList.toggle("pending", Number(element.dataset.appears) > state.part);
    }
    for (const element of slide.querySelectorAll("[data-only]")) {
      element.hidden = Number(element.dataset.only) !== state.part || state.part === getParts();
    }
    if (scan && !hasScan()) scan.stop();
    if (hasScan()) scan.showPart(state.part, isNext);
    const title = `Slide ${state.step} of ${slides.length}: ${slide.querySelector("h2").textContent.trim()}`;
    if (status.textContent !== title) status.textContent = title;
    document.body.classList.remove("blank");
    updateBar();
  }

  function go(step, part = 1, isNext = false) {
    state.step = Math.min(Math.max(step, 1), slides.length);
    state.part = Math.min(Math.max(part, 1), getParts());
    getSlide().scrollTop = 0;
    writeAddress();
    draw(isNext);
  }

  function next() {
    if (hasScan() && scan.isMoving()) scan.finish();
    else if (state.part < getParts()) go(state.step, state.part + 1, true);
    else if (state.step < slides.length) go(state.step + 1);
  }

  function previous() {
    if (state.part > 1) go(state.step, state.part - 1);
    else if (state.step > 1) go(state.step - 1, Infinity);
  }

  // Images

  function showImage(html) {
    if (scan) scan.stop();
    scan = null;
    container.innerHTML = html;
    slides = [...container.querySelectorAll(".slide")];
    slides.forEach((slide) => { slide.tabIndex = 0; }); // for it may scroll
    const box = container.querySelector(".lecture-convolution");
    if (box) scan = makeScan(box);
  }

  const loadScript = (image) => new Promise((resolve, reject) => {
    const path = `../lecture/${lecture.dataset.network}/${image}.js`;
    const fail = () => reject(new Error(`${path} is missing or damaged. Rebuild the gallery.`));
    const onload = () => (fragments[image] ? resolve(fragments[image]) : fail());
    document.head.append(Object.assign(document.createElement("script"), { src: path, onload, onerror: fail }));
  });

  /* Unpack HTML that was compressed with gzip, in base 64. */
  function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }

  /* Show a slide of an image, by default the one of the same kind as now; of the first image where there is none of
     this name. */
  async function open({ image, step, part = 1 }) {
    const images = select ? [...select.options].map(({ value }) => value) : [firstImage];
    const name = images.includes(image) ? image : firstImage;
    if (state.image !== name || !slides.length) {
      try {
        const html = await (fragments[name] ?? loadScript(name));
        const kind = slides.length ? getSlide().dataset.kind : "";
        showImage(html);
        step ??= slides.findIndex((slide) => slide.dataset.kind === kind) + 1;
      } catch (error) {
        status.textContent = error.message;
        status.classList.remove("visually-hidden");
        return;
      }
    }
    state.image = name;
    go(step ?? state.step, part);
  }

  function readAddress() {
    const values = new URLSearchParams(location.hash.slice(1));
    const parse = (key) => (/^\d{1,4}$/.test(values.get(key)) ? Number(values.get(key)) : 1);
    return { image: values.get("image") ?? state.image, step: parse("step"), part: parse("part") };
  }

  // Actions

  const leave = () => location.assign(lecture.dataset.back);

  const ACTIONS = {
    next, previous,
    play: () => {
      if (!hasScan()) return;
      if (scan.isMoving()) scan.stop();
      else scan.play();
    },
    fullscreen: () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else document.documentElement.requestFullscreen().catch(() => {});
    },
    help: () => (help.open ? help.close() : help.showModal()),
    print: () => window.print(),
    blank: () => document.body.classList.toggle("blank"),
    leave,
  };

  /* Scroll a slide that is higher than the screen, or else go on or back. */
  function scrollOr(direction, action) {
    const slide = getSlide();
    if (slide.scrollHeight <= slide.clientHeight + 1) action();
    else slide.scrollBy(0, (direction * slide.clientHeight) / 3);
  }

  function findAction({ key, shiftKey }) {
    if (key === "ArrowRight" || key === "ArrowLeft") {
      const isNext = key === "ArrowRight";
      if (shiftKey) return () => go(state.step + (isNext ? 1 : -1));
      return isNext ? next : previous;
    }
    if (key === "ArrowDown") return () => scrollOr(1, next);
    if (key === "ArrowUp") return () => scrollOr(-1, previous);
    if (key === " ") return shiftKey ? previous : next;
    if (/^[1-9]$/.test(key)) return () => go(Number(key));
    const actions = {
      PageDown: next, PageUp: previous, Home: () => go(1), End: () => go(slides.length), p: ACTIONS.play,
      f: ACTIONS.fullscreen, b: ACTIONS.blank, ".": ACTIONS.blank, o: leave, Escape: leave, "?": ACTIONS.help,
    };
    return actions[key] ?? null;
  }

  function onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target.closest("select")) return;
    if (event.key === " " && event.target.closest("button, a")) return;
    const action = findAction(event);
    if (!action) return;
    event.preventDefault();
    action();
  }

  document.addEventListener("keydown", onKey);
  bar.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    if (button) ACTIONS[button.dataset.action]();
  });
  select?.addEventListener("change", () => {
    open({ image: select.value });
    select.blur(); // so that the keys go to the slides again
  });
  addEventListener("hashchange", () => open(readAddress()));
  document.addEventListener("click", () => document.body.classList.remove("blank"));
  onSwipe(container, (direction) => (direction > 0 ? next() : previous()));

  bar.hidden = false;
  bar.querySelector('[data-action="fullscreen"]').hidden = !document.fullscreenEnabled;
  document.documentElement.classList.add("presenting");
  open(readAddress());

  return (image, base64) => { fragments[image] = unpack(base64); };
})();
