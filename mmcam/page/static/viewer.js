// One result: what was said, the map of what is chosen, and what there is to know of it.

const TASKS = { caption: "Caption", answers: "Question", actions: "Clip", classes: "Classes", targets: "Scores" };

class Viewer {
  constructor(record, head, start = 0) {
    const tables = Object.fromEntries(Object.entries(head.tables).map(([key, text]) => [key, bytes(text)]));
    this.record = record;
    this.look = { tables, colormap: head.colormap, opacity: 0.55, smooth: true, shown: true };
    this.colormaps = head.colormaps;
    this.groups = grouped(record.targets);
    const first = record.targets[start] || record.targets[0];
    Object.assign(this, { hovered: null, pins: [], small: [], view: "one", frame: 0, method: first.method, layer: first.layer });
    this.chosen = this.groups.findIndex((group) => group.includes(first));
    this.other = this.groups.length > 1 ? (this.chosen + 1) % this.groups.length : 0;
    this.stage = new Stage(record, this.look);
    this.panel = unique("panel");
    this.build();
    this.choose(this.chosen);
    if (this.player && !first.empty) this.player.seek(first.peak[2] || 0);
  }

  build() {
    const { record } = this;
    this.clip = record.frames !== null;
    this.facts = make("p", { class: "facts", role: "status" });
    this.notice = make("p", { class: "notice", role: "status", hidden: true });
    this.pair = make("div", { class: "pair", hidden: true });
    this.pin = make("button", { type: "button", click: () => this.togglePin() });
    this.single = make("div", { class: "single" }, this.stage.element);
    this.sheet = make("div", { class: "sheet", hidden: true });
    this.pinned = make("section", { class: "pinned", "aria-label": "Pinned maps", hidden: true });
    if (this.clip) this.player = new Player(record, this.stage, (frame) => this.moved(frame));
    this.show = make("div", { class: "show", id: this.panel }, this.bar(), this.pair, this.single, this.sheet, this.facts,
      this.notice, this.player ? this.player.element : null, this.pinned);
    this.element = make("article", { class: "viewer", keydown: (event) => this.key(event) }, this.heading(),
      make("div", { class: "body" }, this.show, this.aside()), this.details());
  }

  heading() {
    const { record } = this;
    const kind = record.text.caption === undefined ? TASKS[record.task] || record.task
      : record.text.generated ? "The model says" : "A given caption";
    const over = make("p", { class: "eyebrow" }, kind, record.title === record.file ? null : make("bdi", {}, record.file));
    const head = make("header", {}, over);
    if (record.text.caption !== undefined && record.text.words.length) {
      this.words = new Words(record, this.groups, (i) => this.hover(i), (i) => this.choose(i));
      head.append(make("h1", { class: "hidden", dir: "auto" }, record.text.caption), this.words.element);
      return head;
    }
    if (record.text.question !== undefined) {
      this.question = new Question(record);
      head.append(this.question.element);
    } else head.append(make("h1", { dir: "auto" }, record.title));
    const items = this.groups.map(([target]) => ({ label: name(target), note: percent(target.probability), share: target.probability }));
    this.tabs = new Tabs("What is explained", items, this.panel, (i) => this.choose(i));
    this.show.setAttribute("role", "tabpanel");
    head.append(this.tabs.element);
    return head;
  }

  bar() {
    const views = [["one", "One map"]];
    if (this.groups.length > 1) views.push(["side", "Side by side"]);
    if (this.groups.some((group) => group.length > 1)) views.push(["methods", "All methods"]);
    if (this.pairs().length) views.push(["difference", "Difference"]);
    if (views.length === 1) return null;
    return make("div", { class: "viewbar" }, segments("View", views, this.view, (view) => this.look_at(view)), this.pin);
  }

  pairs() {
    return this.groups.flatMap((one, i) => this.groups.slice(i + 1).filter((other) => comparable(one[0], other[0])));
  }

  aside() {
    const { look } = this;
    const redraw = (change) => (value) => { change(value); this.draw(); };
    const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: look.opacity,
      input: redraw(() => { look.opacity = Number(opacity.value); }) });
    this.scale = make("canvas", { class: "scale", width: 257, height: 1, "aria-hidden": "true" });
    this.colours = row("Colours", choice(this.colormaps, look.colormap, redraw((value) => { look.colormap = value; }),
      { jet: "jet, as in the papers" }));
    this.ends = make("p", { class: "ends quiet" }, make("span", {}), make("span", {}));
    this.smooth = tick("Smooth between the cells", look.smooth, redraw((value) => { look.smooth = value; }));
    this.unseen = make("p", { class: "quiet" }, make("span", { class: "swatch hatch" }), " not seen by the model");
    this.drawing = make("div", { class: "drawing" }, row("Opacity", opacity), this.colours, this.scale, this.ends, this.smooth);
    return make("aside", { "aria-label": "Controls" }, this.switches(),
      tick("Show the map", look.shown, redraw((value) => { look.shown = value; })), this.drawing, this.unseen);
  }

  switches() {
    const methods = [...new Set(this.record.targets.map((target) => target.method))];
    const layers = [...new Set(this.record.targets.map((target) => target.layer))];
    const made = make("div", { class: "switches" });
    if (methods.length > 1) {
      made.append(row("Method", choice(methods, this.method, (value) => this.change({ method: value }))));
    }
    if (layers.length > 1) {
      this.layers = choice(layers, this.layer, (value) => this.change({ layer: value }));
      made.append(row("Layer", this.layers));
    }
    return made.children.length ? made : null;
  }

  details() {
    const head = ["", "score", "probability", "method", "layer", this.clip ? "peak (x, y, frame)" : "peak (x, y)"];
    const lines = this.record.targets.map((target) => make("tr", {},
      make("th", { scope: "row", dir: "auto" }, name(target)),
      ...[digits(target.score), target.probability === null ? "–" : digits(target.probability), target.method, target.layer,
        target.empty ? "no positive evidence" : target.peak.filter((value) => value !== null).map(Math.round).join(", ")]
        .map((text) => make("td", {}, text))));
    const table = make("table", {}, make("caption", { class: "hidden" }, "All maps"),
      make("thead", {}, make("tr", {}, ...head.map((text) => make(text ? "th" : "td", text ? { scope: "col" } : {}, text)))),
      make("tbody", {}, ...lines));
    const origin = make("dl", {}, ...this.record.record.flatMap(([key, text]) =>
      [make("dt", {}, key), make("dd", { dir: "auto" }, text)]));
    const notes = this.record.text.notes.map((note) => make("p", { dir: "auto" }, note));
    return make("footer", {}, make("details", {}, make("summary", {}, "All numbers, and where they come from"), ...notes,
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All maps" }, table), origin));
  }

  // The map of a group by the method and layer that are chosen, or the nearest to them.
  variant(group) {
    const same = group.filter((target) => target.method === this.method);
    return same.find((target) => target.layer === this.layer) || same[0] || group[0];
  }

  get target() {
    return this.variant(this.groups[this.hovered === null ? this.chosen : this.hovered]);
  }

  change(what) {
    Object.assign(this, what);
    this.draw();
  }

  hover(i) {
    if (this.hovered === i) return;
    this.hovered = i;
    this.drawChosen();
  }

  choose(i) {
    this.chosen = i;
    this.hovered = null;
    this.draw();
  }

  look_at(view) {
    this.view = view;
    this.draw();
  }

  key(event) {
    if (event.key.toLowerCase() !== "p" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!event.target.matches("select, input:not([type=checkbox]):not([type=radio]):not([type=range])")) this.togglePin();
  }

  togglePin(target = this.target) {
    this.pins = this.pins.includes(target) ? this.pins.filter((one) => one !== target) : [...this.pins, target];
    this.draw();
  }

  moved(frame) {
    if (this.frame === frame) return;
    this.frame = frame;
    this.drawStage();
    for (const [stage, target] of this.small) this.follow(stage, target);
  }

  // A small stage of a clip shows the nearest frame that there is, and the map of that frame.
  follow(stage, target) {
    const { frames } = this.record.seen;
    stage.show(target, frames.length ? frames[nearestStill(frames, this.frame)].frame : this.frame);
  }

  drawStage() {
    const { target } = this;
    const other = this.variant(this.groups[this.other]);
    if (this.view === "difference" && comparable(target, other)) this.stage.showDifference(target, other, this.frame);
    else this.stage.show(target, this.frame);
  }

  draw() {
    const { target } = this;
    const sheet = this.view === "side" || this.view === "methods";
    this.drawChosen();
    this.single.hidden = sheet;
    this.sheet.hidden = !sheet;
    this.pinned.hidden = sheet || !this.pins.length;
    if (sheet) this.fill(this.sheet, this.sheetOf());
    else this.fill(this.pinned, this.pins);
    this.pin.textContent = this.pins.includes(target) ? "Unpin" : "Pin this map";
    this.pin.hidden = this.view !== "one";
    this.drawPair();
  }

  // What follows the pointer too.
  drawChosen() {
    const { target } = this;
    this.drawStage();
    if (this.words) this.words.mark(this.chosen, this.groups.findIndex((group) => group.includes(target)));
    if (this.tabs) this.tabs.mark(this.chosen);
    if (this.question) this.question.show(target);
    if (this.player) this.player.show(target);
    this.drawFacts(target);
  }

  // Small stages for these targets; those that are there already are drawn again.
  fill(place, targets) {
    const same = this.small.length === targets.length && this.small.every(([, target], i) => target === targets[i]);
    if (same && this.filled === place) {
      for (const [stage, target] of this.small) this.follow(stage, target);
      return;
    }
    Object.assign(this, { small: [], filled: place });
    place.replaceChildren(...targets.map((target) => this.figure(target, place === this.pinned)));
  }

  sheetOf() {
    if (this.view === "methods") return this.groups[this.chosen];
    return this.groups.map((group) => this.variant(group));
  }

  drawFacts(target) {
    const { record } = this;
    const made = `${target.method} at ${target.layer}`;
    const score = target.kind === "sentence" ? `log p ${digits(target.score)}` : `score ${digits(target.score)}`;
    const share = target.probability === null || target.kind === "sentence" ? [] : [`probability ${digits(target.probability)}`];
    const other = this.variant(this.groups[this.other]);
    const [what, ...parts] = {
      one: () => [name(target), record.model, made, score, ...share],
      side: () => ["", record.model, made],
      methods: () => [name(target), record.model, score, ...share],
      difference: () => [`${name(target)} minus ${name(other)}`, record.model, made, ...this.extent(target, other)],
    }[this.view]();
    this.facts.replaceChildren(...(what ? [make("strong", { dir: "auto" }, what)] : []), ...parts.map((text) => make("span", {}, text)));
    const plain = name({ ...target, against: false });
    const speaks = target.against ? "speaks against" : "speaks for";
    if (target.empty) this.notice.textContent = `No positive evidence: nothing that the model saw ${speaks} “${plain}”.`;
    else this.notice.textContent = target.against ? `Counterfactual: this map shows what speaks against “${plain}”.` : "";
    this.notice.hidden = !this.notice.textContent;
    this.unseen.hidden = !hasMargins(target, record);
    this.drawing.hidden = !target.map || Boolean(target.drawn);
    if (this.layers) {
      const layers = this.groups.flat().filter((one) => one.method === target.method).map((one) => one.layer);
      setOptions(this.layers, [...new Set(layers)], target.layer);
    }
    this.drawScale(this.view === "difference" ? "difference" : this.look.colormap, target);
  }

  // How large the largest difference is, since the colours always reach it.
  extent(one, other) {
    if (!comparable(one, other)) return [];
    const most = Math.max(one.maximum, other.maximum);
    return [`largest difference ${percent(most && mostBetween(one, other) / most)} of the higher map's maximum`];
  }

  drawScale(colormap, target) {
    const context = this.scale.getContext("2d");
    const image = context.createImageData(STEPS + 1, 1);
    const table = this.look.tables[colormap];
    for (let i = 0; i <= STEPS; i++) image.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(image, 0, 0);
    const other = this.variant(this.groups[this.other]);
    const [low, high] = colormap === "difference" ? [`more for ${name(other)}`, `more for ${name(target)}`] : ["none", "most evidence"];
    this.ends.firstChild.textContent = low;
    this.ends.lastChild.textContent = high;
    this.colours.hidden = colormap === "difference";
  }

  drawPair() {
    this.pair.hidden = this.view !== "difference";
    if (this.pair.hidden) return;
    const labels = Object.fromEntries(this.groups.map((group, i) => [String(i), name(group[0])]));
    const keys = Object.keys(labels);
    const one = choice(keys, String(this.chosen), (value) => this.choose(Number(value)), labels);
    const other = choice(keys, String(this.other), (value) => this.change({ other: Number(value) }), labels);
    const fits = comparable(this.target, this.variant(this.groups[this.other]));
    const focused = [...this.pair.querySelectorAll("select")].indexOf(document.activeElement);
    this.pair.replaceChildren(row("Map of", one), row("minus", other),
      fits ? "" : make("p", { class: "quiet" }, "These two maps do not lie on the same grid; the first is shown."));
    if (focused >= 0) [one, other][focused].focus();
  }

  figure(target, pinned) {
    const stage = new Stage(this.record, this.look, "small");
    this.small.push([stage, target]);
    this.follow(stage, target);
    const variants = this.view === "methods" || this.groups.some((group) => group.length > 1);
    const facts = [target.probability !== null && target.kind !== "sentence" ? percent(target.probability) : digits(target.score)];
    if (variants) facts.push(`${target.method} at ${target.layer}`);
    if (target.empty) facts.push("no positive evidence");
    const unpin = make("button", { type: "button", "aria-label": `Unpin ${name(target)}`, click: () => this.togglePin(target) }, "Unpin");
    return make("figure", {}, stage.element, make("figcaption", {}, make("strong", { dir: "auto" }, name(target)),
      make("span", { class: "quiet" }, facts.join(" · ")), pinned ? unpin : null));
  }
}

// The maps of one label belong together: its methods and layers.
function grouped(targets) {
  const found = new Map();
  for (const target of targets) {
    const key = JSON.stringify([target.kind, target.position, target.label, target.against]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(target);
  }
  return [...found.values()];
}
