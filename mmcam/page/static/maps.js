// Maps: from quantised cells to colours over a picture, as mmcam/grids.py and render/overlay.py do.

const STEPS = 256;

function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

const decoded = new WeakMap();

function quantised(target) {
  if (!decoded.has(target)) decoded.set(target, bytes(target.map));
  return decoded.get(target);
}

// Which time slices a frame of a clip is mixed from: pairs of a slice and its share.
// A frame that several windows cover is their mean; one that none covers has no slices.
function slicesAt(target, frame) {
  const each = target.grid[0] / target.spans.length;
  const at = frame + 0.5;
  const found = [];
  let covered = 0;
  target.spans.forEach(([first, last], window) => {
    if (at < first || at > last) return;
    covered += 1;
    const place = clamp(((at - first) / (last - first)) * each - 0.5, 0, each - 1);
    const low = Math.min(Math.floor(place), Math.max(each - 2, 0));
    const share = place - low;
    found.push([window * each + low, 1 - share]);
    if (share > 0) found.push([window * each + low + 1, share]);
  });
  return found.map(([slice, share]) => [slice, share / covered]);
}

// The map in [0, 1], row by row; for a clip at one of its frames. Null where nothing was seen.
function cells(target, frame) {
  const [height, width] = target.grid.slice(-2);
  const found = new Float32Array(height * width);
  const raw = quantised(target);
  const slices = target.spans ? slicesAt(target, frame) : [[0, 1]];
  if (!slices.length) return null;
  for (const [slice, share] of slices) {
    const start = slice * height * width;
    for (let i = 0; i < found.length; i++) found[i] += (share * raw[start + i]) / 255;
  }
  return found;
}

// Whether two maps lie on the same cells, so that one can be taken from the other.
function comparable(one, other) {
  const place = (target) => JSON.stringify([target.grid, target.box, target.spans, target.layer, target.method]);
  return Boolean(one.map && other.map) && place(one) === place(other);
}

// How much two maps differ at most, over all their cells: they share one scale.
function mostBetween(one, other) {
  const [a, b] = [quantised(one), quantised(other)];
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] * one.maximum - b[i] * other.maximum) / 255);
  return most;
}

// The difference of two maps as shares of the largest one, in [-1, 1].
function difference(one, other, frame) {
  const [a, b] = [cells(one, frame), cells(other, frame)];
  if (!a || !b) return null;
  const most = mostBetween(one, other) || 1;
  return a.map((value, i) => (value * one.maximum - b[i] * other.maximum) / most);
}

// Where the middles of `count` pixels fall between `size` cells: the lower cell and the share of the next.
function between(count, size) {
  const low = new Int32Array(count);
  const share = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    const place = clamp(((i + 0.5) / count) * size - 0.5, 0, size - 1);
    low[i] = Math.min(Math.floor(place), Math.max(size - 2, 0));
    share[i] = size > 1 ? place - low[i] : 0;
  }
  return [low, share];
}

// Bilinear interpolation with half-pixel centres: first along the rows of cells, then down.
function smoothed(values, [height, width], [rows, columns]) {
  const [left, right] = between(columns, width);
  const [up, down] = between(rows, height);
  const wide = new Float32Array(height * columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns; x++) {
      const at = y * width + left[x];
      wide[y * columns + x] = right[x] ? values[at] * (1 - right[x]) + values[at + 1] * right[x] : values[at];
    }
  }
  const found = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const [start, share] = [up[y] * columns, down[y]];
    for (let x = 0; x < columns; x++) {
      const at = start + x;
      found[y * columns + x] = share ? wide[at] * (1 - share) + wide[at + columns] * share : wide[at];
    }
  }
  return found;
}

// For each of 257 steps its colour and cover, which is opacity * (1 - (1 - heat)^2).
function palette(table, opacity, signed) {
  const found = new Uint8ClampedArray(4 * (STEPS + 1));
  for (let i = 0; i <= STEPS; i++) {
    const heat = signed ? Math.abs((2 * i) / STEPS - 1) : i / STEPS;
    found.set(table.subarray(3 * i, 3 * i + 3), 4 * i);
    found[4 * i + 3] = Math.round(255 * opacity * (1 - (1 - heat) ** 2));
  }
  return new Uint32Array(found.buffer);
}

// Draw values over a canvas of [rows, columns] cells, or over `size` smooth pixels.
function paint(canvas, values, grid, size, colours, signed) {
  const [height, width] = size || grid;
  const shown = size ? smoothed(values, grid, size) : values;
  canvas.width = width;
  canvas.height = height;
  canvas.classList.toggle("raw", !size);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) {
    const value = signed ? (shown[i] + 1) / 2 : shown[i];
    pixels[i] = colours[Math.round(clamp(value, 0, 1) * STEPS)];
  }
  context.putImageData(image, 0, 0);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
