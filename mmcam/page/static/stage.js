// The picture, or a frame of the clip, with a map over it and what was not seen hatched.

// Elements from texts: whatever a text holds, it becomes text.
function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SMOOTH = { large: 512, small: 256 };

class Stage {
  // `look` is shared: colormap, opacity, smooth, shown; `tables` its colours.
  constructor(record, look, size = "large") {
    this.record = record;
    this.look = look;
    this.side = SMOOTH[size];
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
    this.image(this.photo, record.seen.picture || (record.seen.frames[0] || {}).picture);
  }

  image(element, source) {
    if (source && element.getAttribute("src") !== source) element.src = source;
  }

  show(target, frame = 0) {
    this.still(target, frame);
    this.element.setAttribute("aria-label", describe(target, this.record));
    this.element.classList.toggle("is-gradient", Boolean(target.pixels));
    this.gradient.hidden = !target.pixels || !this.look.shown;
    this.canvas.hidden = !target.map || !this.look.shown || Boolean(target.drawn);
    if (target.pixels) this.image(this.gradient, target.pixels);
    const values = target.map ? cells(target, frame) : null;
    this.place(target, values === null && Boolean(target.map));
    if (!this.canvas.hidden) this.draw(target, values, this.look.colormap);
  }

  showDifference(one, other, frame = 0) {
    this.still(one, frame);
    this.element.setAttribute("aria-label", `Difference of the maps of “${name(one)}” and “${name(other)}”`);
    this.gradient.hidden = true;
    this.canvas.hidden = !this.look.shown;
    const values = difference(one, other, frame);
    this.place(one, values === null);
    this.draw(one, values, "difference");
  }

  // Of a clip the frame that is nearest; the player covers it where there is one.
  still(target, frame) {
    if (target.drawn) this.image(this.photo, target.drawn);
    const frames = this.record.seen.frames;
    if (frames.length) this.image(this.photo, frames[nearestStill(frames, frame)].picture);
  }

  draw(target, values, colormap) {
    if (!values) {
      this.canvas.width = this.canvas.width;
      return;
    }
    const signed = colormap === "difference";
    const colours = palette(this.look.tables[colormap], this.look.opacity, signed);
    const [left, top, right, bottom] = target.box;
    const scale = this.side / Math.max(right - left, bottom - top);
    const size = this.look.smooth
      ? [bottom - top, right - left].map((length) => Math.max(1, Math.round(length * scale)))
      : null;
    paint(this.canvas, values, target.grid.slice(-2), size, colours, signed);
  }

  place(target, nothing) {
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
    const outside = "0 0, 100% 0, 100% 100%, 0 100%, 0 0";
    for (const element of this.unseen) {
      element.style.clipPath = `polygon(evenodd, ${outside}${nothing ? "" : hole})`;
      element.hidden = !nothing && !hasMargins(target, this.record);
    }
  }
}

function nearestStill(frames, frame) {
  let best = 0;
  frames.forEach((one, i) => {
    if (Math.abs(one.frame - frame) < Math.abs(frames[best].frame - frame)) best = i;
  });
  return best;
}

// Whether the model did not see all of the picture.
function hasMargins(target, record) {
  const [height, width] = record.size;
  const [left, top, right, bottom] = target.box;
  return left > 0.5 || top > 0.5 || right < width - 0.5 || bottom < height - 0.5;
}

// What a target is called, where the sentence itself is in sight already.
function name(target) {
  const label = target.kind === "sentence" ? "whole sentence" : target.label;
  return target.against ? `against ${label}` : label;
}

function describe(target, record) {
  if (target.empty) return `No positive evidence for “${name(target)}” in ${record.file}`;
  const [x, y] = target.peak;
  const at = x === null ? "" : `, strongest at x ${Math.round(x)}, y ${Math.round(y)}`;
  return `Heat map for “${name(target)}” on ${record.file}${at}`;
}

function percent(share) {
  if (share === null) return "";
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;
}

// Three digits that matter, without an exponent where it can be helped.
function digits(value) {
  if (value === null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 0.0001) return value.toExponential(2).replace("-", "−");
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 4).replace("-", "−");
}
