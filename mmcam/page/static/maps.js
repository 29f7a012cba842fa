// Maps: from quantised cells to colours over a picture, as in mmcam/grids.py and render/overlay.py.

const STEPS = 256;

function decodeBase64(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const mapCache = new WeakMap();

// The quantised map of a target, decoded on first use.
function quantisedMap(target) {
  if (!mapCache.has(target)) mapCache.set(target, decodeBase64(target.map));
  return mapCache.get(target);
}

// The time slices from which a frame of a clip is interpolated: pairs of a slice and its weight.
// A frame covered by several windows is their mean; a frame outside all windows has no slices.
function sliceWeights(target, frame) {
  const count = target.grid[0] / target.spans.length;
  const time = frame + 0.5;
  const extent = extentOf(target, 0);
  const weights = [];
  let covered = 0;
  target.spans.forEach(([first, last], window) => {
    if (time < first || time > last) return;
    covered += 1;
    const share = within((time - first) / (last - first), extent);
    const position = clamp(share * count - 0.5, 0, count - 1);
    const low = Math.min(Math.floor(position), Math.max(count - 2, 0));
    const weight = position - low;
    weights.push([window * count + low, 1 - weight]);
    if (weight > 0) weights.push([window * count + low + 1, weight]);
  });
  return weights.map(([slice, weight]) => [slice, weight / covered]);
}

// The values of a map in [0, 1], row by row; of a clip, at one frame. Null for a frame outside all windows.
function mapValues(target, frame) {
  const [height, width] = target.grid.slice(-2);
  const values = new Float32Array(height * width);
  const quantised = quantisedMap(target);
  const slices = target.spans ? sliceWeights(target, frame) : [[0, 1]];
  if (!slices.length) return null;
  for (const [slice, weight] of slices) {
    const start = slice * height * width;
    for (let i = 0; i < values.length; i++) values[i] += (weight * quantised[start + i]) / 255;
  }
  return values;
}

// Whether two maps have the same cells, layer and method, so that one can be subtracted from the other.
function comparable(first, second) {
  const geometry = (target) => JSON.stringify([target.grid, target.box, target.extent, target.spans, target.layer, target.method]);
  return Boolean(first.map && second.map) && geometry(first) === geometry(second);
}

// The largest absolute difference of two maps over all cells, by which their difference is scaled.
function maxDifference(first, second) {
  const [a, b] = [quantisedMap(first), quantisedMap(second)];
  let maximum = 0;
  for (let i = 0; i < a.length; i++) maximum = Math.max(maximum, Math.abs(a[i] * first.maximum - b[i] * second.maximum) / 255);
  return maximum;
}

// The difference of two maps divided by the largest absolute difference, in [-1, 1].
function difference(first, second, frame) {
  const [a, b] = [mapValues(first, frame), mapValues(second, frame)];
  if (!a || !b) return null;
  const maximum = maxDifference(first, second) || 1;
  return a.map((value, i) => (value * first.maximum - b[i] * second.maximum) / maximum);
}

// The interval of the model input that the cells cover along an axis, as shares of its length; the axis may be negative.
function extentOf(target, axis) {
  return target.extent.length ? target.extent.at(axis) : [0, 1];
}

// A position as a share of an interval.
function within(position, [first, last]) {
  return (position - first) / (last - first);
}

// Linear interpolation of `count` pixels from `size` cells over the part `extent` of the pixels: for each pixel, the
// lower cell and the weight of the next. If `smooth` is false, each pixel takes the nearest cell.
function linearWeights(count, size, extent, smooth) {
  const low = new Int32Array(count);
  const weight = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let position = clamp(within((i + 0.5) / count, extent) * size - 0.5, 0, size - 1);
    if (!smooth) position = Math.round(position);
    low[i] = Math.min(Math.floor(position), Math.max(size - 2, 0));
    weight[i] = size > 1 ? position - low[i] : 0;
  }
  return [low, weight];
}

// A map as pixels, by bilinear interpolation or by the nearest cell: first along the rows of cells, then the columns.
function interpolate(values, target, [rows, columns], smooth) {
  const [height, width] = target.grid.slice(-2);
  const [left, right] = linearWeights(columns, width, extentOf(target, -1), smooth);
  const [up, down] = linearWeights(rows, height, extentOf(target, -2), smooth);
  const wide = new Float32Array(height * columns);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < columns; x++) {
      const index = y * width + left[x];
      wide[y * columns + x] = right[x] ? values[index] * (1 - right[x]) + values[index + 1] * right[x] : values[index];
    }
  }
  const pixels = new Float32Array(rows * columns);
  for (let y = 0; y < rows; y++) {
    const [start, weight] = [up[y] * columns, down[y]];
    for (let x = 0; x < columns; x++) {
      const index = start + x;
      pixels[y * columns + x] = weight ? wide[index] * (1 - weight) + wide[index + columns] * weight : wide[index];
    }
  }
  return pixels;
}

// The colour and alpha of each of 257 steps; alpha is opacity * (1 - (1 - value)^2), as in overlay().
function palette(table, opacity, signed) {
  const rgba = new Uint8ClampedArray(4 * (STEPS + 1));
  for (let i = 0; i <= STEPS; i++) {
    const value = signed ? Math.abs((2 * i) / STEPS - 1) : i / STEPS;
    rgba.set(table.subarray(3 * i, 3 * i + 3), 4 * i);
    rgba[4 * i + 3] = Math.round(255 * opacity * (1 - (1 - value) ** 2));
  }
  return new Uint32Array(rgba.buffer);
}

// Draw the pixels of a map of `size` on a canvas.
function paint(canvas, shown, [height, width], colours, signed) {
  canvas.width = width;
  canvas.height = height;
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
