// A stage: the picture or a frame of the clip under a map, hatched outside the model input.

// Create an element. Texts are appended as text nodes, never parsed as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// The longer side of a drawn map in pixels, by the size of the stage.
const CANVAS_SIDE = { large: 512, small: 256 };

class Stage {
  // `options` is shared by all stages: colormap, opacity, smooth, shown, and the colour `tables`.
  constructor(record, options, size = "large") {
    this.record = record;
    this.options = options;
    this.side = CANVAS_SIDE[size];
    this.photo = make("img", { alt: "", class: "photo", draggable: "false" });
    this.gradient = make("img", { alt: "", class: "gradient", hidden: true });
    this.unseen = [make("div", { class: "grey" }), make("div", { class: "unseen" })];
    this.canvas = make("canvas", {});
    this.element = make("div", { class: `stage ${size}`, role: "img" }, this.photo, ...this.unseen, this.gradient, this.canvas);
    const [height, width] = record.size;
    this.element.style.aspectRatio = `${width} / ${height}`;
    this.element.style.setProperty("--proportion", width / height);
    this.photo.width = width;
    this.photo.height = height;
    this.setSource(this.photo, record.seen.picture || (record.seen.frames[0] || {}).picture);
  }

  setSource(element, source) {
    if (source && element.getAttribute("src") !== source) element.src = source;
  }

  show(target, frame = 0) {
    this.showPhoto(target, frame);
    this.element.setAttribute("aria-label", describeMap(target, this.record));
    this.element.classList.toggle("is-gradient", Boolean(target.pixels));
    this.gradient.hidden = !target.pixels || !this.options.shown;
    this.canvas.hidden = !target.map || !this.options.shown || Boolean(target.drawn);
    if (target.pixels) this.setSource(this.gradient, target.pixels);
    const values = target.map ? mapValues(target, frame) : null;
    this.position(target, values === null && Boolean(target.map));
    if (!this.canvas.hidden) this.draw(target, values, this.options.colormap);
  }

  showDifference(first, second, frame = 0) {
    this.showPhoto(first, frame);
    this.element.setAttribute("aria-label", `Difference of the maps of “${displayName(first)}” and “${displayName(second)}”`);
    this.gradient.hidden = true;
    this.canvas.hidden = !this.options.shown;
    const values = difference(first, second, frame);
    this.position(first, values === null);
    this.draw(first, values, "difference");
  }

  // Show the picture, or the embedded frame nearest to `frame`; the player, if any, covers it.
  showPhoto(target, frame) {
    if (target.drawn) this.setSource(this.photo, target.drawn);
    const frames = this.record.seen.frames;
    if (frames.length) this.setSource(this.photo, frames[nearestFrame(frames, frame)].picture);
  }

  draw(target, values, colormap) {
    if (!values) {
      this.canvas.width = this.canvas.width;
      return;
    }
    const signed = colormap === "difference";
    const colours = palette(this.options.tables[colormap], this.options.opacity, signed);
    const [left, top, right, bottom] = target.box;
    const scale = this.side / Math.max(right - left, bottom - top);
    const size = [bottom - top, right - left].map((length) => Math.max(1, Math.round(length * scale)));
    paint(this.canvas, interpolate(values, target, size, this.options.smooth), size, colours, signed);
  }

  // Position the map over the model input and hatch the rest, or everything if `outside` is true.
  position(target, outside) {
    const [height, width] = this.record.size;
    const [left, top, right, bottom] = target.box;
    for (const element of [this.canvas, this.gradient]) {
      element.style.left = `${(100 * left) / width}%`;
      element.style.top = `${(100 * top) / height}%`;
      element.style.width = `${(100 * (right - left)) / width}%`;
      element.style.height = `${(100 * (bottom - top)) / height}%`;
    }
    const [x0, x1] = [left, right].map((x) => `${clamp((100 * x) / width, 0, 100)}%`);
    const [y0, y1] = [top, bottom].map((y) => `${clamp((100 * y) / height, 0, 100)}%`);
    const hole = `, ${x0} ${y0}, ${x1} ${y0}, ${x1} ${y1}, ${x0} ${y1}, ${x0} ${y0}`;
    const border = "0 0, 100% 0, 100% 100%, 0 100%, 0 0";
    for (const element of this.unseen) {
      element.style.clipPath = `polygon(evenodd, ${border}${outside ? "" : hole})`;
      element.hidden = !outside && !hasMargins(target, this.record);
    }
  }
}

// The index of the embedded frame that is nearest to `frame`.
function nearestFrame(frames, frame) {
  let best = 0;
  frames.forEach((still, i) => {
    if (Math.abs(still.frame - frame) < Math.abs(frames[best].frame - frame)) best = i;
  });
  return best;
}

// Whether a part of the picture lies outside the model input.
function hasMargins(target, record) {
  const [height, width] = record.size;
  const [left, top, right, bottom] = target.box;
  return left > 0.5 || top > 0.5 || right < width - 0.5 || bottom < height - 0.5;
}

// The label of a target as shown beside the maps; the sentence itself is in the heading.
function displayName(target) {
  const label = target.kind === "sentence" ? "whole sentence" : target.label;
  return target.against ? `against ${label}` : label;
}

function describeMap(target, record) {
  if (target.empty) return `No positive evidence for “${displayName(target)}” in ${record.file}`;
  const [x, y] = target.peak;
  const peak = x === null ? "" : `, strongest at x ${Math.round(x)}, y ${Math.round(y)}`;
  return `Heatmap of “${displayName(target)}” on ${record.file}${peak}`;
}

function formatPercent(fraction) {
  if (fraction === null) return "";
  if (fraction > 0 && fraction < 0.001) return "<0.1%";
  return `${(100 * fraction).toFixed(fraction < 0.0995 ? 1 : 0)}%`;
}

// A number with about three significant digits, and with an exponent only if it is tiny.
function formatNumber(value) {
  if (value === null) return "–";
  const magnitude = Math.abs(value);
  if (magnitude !== 0 && magnitude < 0.0001) return value.toExponential(2).replace("-", "−");
  return value.toFixed(magnitude >= 100 ? 0 : magnitude >= 10 ? 1 : magnitude >= 1 ? 2 : 4).replace("-", "−");
}
