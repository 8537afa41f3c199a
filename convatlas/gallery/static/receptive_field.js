"use strict";

/* The receptive field of a position of a map, the positions whose fields contain a pixel, and the values of maps, read
   from their sprites. Positions and pixels are [row, column], counted from 0. */

(() => {
  /* Whether the units of a layer have maps of rows and columns. */
  const hasPositions = (layer) => layer.shape.length === 3;

  const isGlobal = ({ receptive_field: field, receptive_step: step }, size) =>
    Boolean(field) && !step && field.length === 2 && field.every((pixels, axis) => pixels >= size[axis]);

  const isLocated = ({ receptive_step: step }) => Boolean(step) && step.length === 2;

  /* The pixels of an input of a size [height, width] that the value at a position depends on: from `start` to before
     `end`, without those beyond the border. null where the field, or its place, is not known. */
  function getFieldBox(layer, position, size) {
    if (isGlobal(layer, size)) return { start: [0, 0], end: [...size], isGlobal: true, isClipped: false };
    if (!isLocated(layer)) return null;
    const { receptive_field: field, receptive_start: start, receptive_step: step } = layer;
    const firsts = position.map((index, axis) => start[axis] + index * step[axis]);
    const clip = (pixel, axis) => Math.max(0, Math.min(size[axis], pixel));
    const box = { start: firsts.map(clip), end: firsts.map((first, axis) => clip(first + field[axis], axis)) };
    const isClipped = firsts.some((first, axis) => first < 0 || first + field[axis] > size[axis]);
    return { ...box, isGlobal: false, isClipped };
  }

  /* The positions of a layer's maps whose receptive fields contain a pixel of an input of a size [height, width]: from
     `start` to before `end`. null where there are none, or the place of the fields is not known. */
  function findPositions(layer, pixel, size) {
    const shape = layer.shape.slice(1);
    if (isGlobal(layer, size)) return { start: [0, 0], end: shape };
    if (!isLocated(layer)) return null;
    const { receptive_field: field, receptive_start: start, receptive_step: step } = layer;
    const clip = (index, axis) => Math.max(0, Math.min(shape[axis], index));
    const first = (at, axis) => clip(Math.ceil((at - start[axis] - field[axis] + 1) / step[axis]), axis);
    const end = (at, axis) => clip(Math.floor((at - start[axis]) / step[axis]) + 1, axis);
    const box = { start: pixel.map(first), end: pixel.map(end) };
    return box.start.every((index, axis) => index < box.end[axis]) ? box : null;
  }

  // Values

  const channels = new WeakMap(); // sheet -> values of one of its channels

  /* One channel of a sheet's pixels: 0 is the grey of a sprite, 3 the opacity of a mark. */
  function readChannel(sheet, channel) {
    if (!channels.has(sheet)) {
      const canvas = document.createElement("canvas");
      Object.assign(canvas, { width: sheet.width, height: sheet.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(sheet, 0, 0);
      const { data } = context.getImageData(0, 0, sheet.width, sheet.height);
      channels.set(sheet, new Uint8Array(sheet.width * sheet.height).map((_, n) => data[4 * n + channel]));
    }
    return channels.get(sheet);
  }

  /* A function from the index of a tile of a view of maps, row and column to the value there, null where it is NaN or
     infinite. Values lie between the recorded minimum and maximum of the unit, in `levels` steps. */
  function readValues(view, sheets, levels) {
    const [height, width] = view.tile_size;
    const tilesPerSheet = view.columns * view.rows;
    return (index, row, column) => {
      const tile = view.first + index;
      const [number, place] = [Math.floor(tile / tilesPerSheet), tile % tilesPerSheet];
      const y = Math.floor(place / view.columns) * height + row;
      const offset = y * view.columns * width + (place % view.columns) * width + column;
      const [min, max] = [view.min(index), view.max(index)];
      const mark = view.marks.length ? sheets[view.paths.length + number] : null;
      if (min === null || (mark && readChannel(mark, 3)[offset])) return null;
      const step = Math.round((readChannel(sheets[number], 0)[offset] * (levels - 1)) / 255);
      return min + (step / (levels - 1)) * (max - min);
    };
  }

  /* Half a step of the values of a tile: how far a value read from the sprite may be from the recorded one. */
  const getPrecision = (view, index, levels) => (view.max(index) - view.min(index)) / (levels - 1) / 2;

  /* The tiles of a view with the largest value in a box of positions, in descending order: { index, value, position }.
     Tiles without a finite value there are left out. */
  function rankTiles(view, readValue, { start, end }, count) {
    const tiles = view.units.map((_, index) => {
      let best = { index, value: -Infinity, position: null };
      for (let row = start[0]; row < end[0]; row++) {
        for (let column = start[1]; column < end[1]; column++) {
          const value = readValue(index, row, column);
          if (value !== null && value > best.value) best = { index, value, position: [row, column] };
        }
      }
      return best;
    });
    return tiles.filter(({ position }) => position).sort((a, b) => b.value - a.value).slice(0, count);
  }

  Object.assign(convatlas, { hasPositions, getFieldBox, findPositions, readValues, getPrecision, rankTiles });
})();
