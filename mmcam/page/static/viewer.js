// The viewer of one result: the heading, the map of the selected target, the controls and the numbers.
const TASKS = { caption: "Caption", answers: "Question", actions: "Clip", classes: "Classes", targets: "Scores" };

class Viewer {
  constructor(record, head, start = 0) {
    const tables = Object.fromEntries(Object.entries(head.tables).map(([key, text]) => [key, decodeBase64(text)]));
    this.record = record;
    this.options = { tables, colormap: head.colormap, opacity: 0.55, smooth: true, shown: true };
    this.colormaps = head.colormaps;
    this.groups = groupTargets(record.targets);
    const first = record.targets[start] || record.targets[0];
    Object.assign(this, { hovered: null, pins: [], smallStages: [], view: "one", frame: 0, method: first.method, layer: first.layer });
    this.selected = this.groups.findIndex((group) => group.includes(first));
    this.subtracted = this.groups.length > 1 ? (this.selected + 1) % this.groups.length : 0;
    this.stage = new Stage(record, this.options);
    this.panelId = uniqueId("panel");
    this.build();
    this.select(this.selected);
    if (this.player && !first.empty) this.player.seek(first.peak[2] || 0);
  }

  build() {
    const { record } = this;
    this.isClip = record.frames !== null;
    this.facts = make("p", { class: "facts", role: "status" });
    this.notice = make("p", { class: "notice", role: "status", hidden: true });
    this.pair = make("div", { class: "pair", hidden: true });
    this.pinButton = make("button", { type: "button", click: () => this.togglePin() });
    this.single = make("div", { class: "single" }, this.stage.element);
    this.sheet = make("div", { class: "sheet", hidden: true });
    this.pinned = make("section", { class: "pinned", "aria-label": "Pinned maps", hidden: true });
    if (this.isClip) this.player = new Player(record, this.stage, (frame) => this.onFrame(frame));
    this.panel = make("div", { class: "show", id: this.panelId }, this.viewBar(), this.pair, this.single, this.sheet, this.facts,
      this.notice, this.player ? this.player.element : null, this.pinned);
    this.element = make("article", { class: "viewer", keydown: (event) => this.onKey(event) }, this.heading(),
      make("div", { class: "body" }, this.panel, this.aside()), this.details());
  }

  heading() {
    const { record } = this;
    const kind = record.text.caption === undefined ? TASKS[record.task] || record.task
      : record.text.generated ? "Generated caption" : "Given caption";
    const eyebrow = make("p", { class: "eyebrow" }, kind, record.title === record.file ? null : make("bdi", {}, record.file));
    const header = make("header", {}, eyebrow);
    if (record.text.caption !== undefined && record.text.words.length) {
      this.words = new CaptionWords(record, this.groups, (i) => this.hover(i), (i) => this.select(i));
      header.append(make("h1", { class: "hidden", dir: "auto" }, record.text.caption), this.words.element);
      return header;
    }
    if (record.text.question !== undefined) {
      this.question = new QuestionWords(record);
      header.append(this.question.element);
    } else header.append(make("h1", { dir: "auto" }, record.title));
    const items = this.groups.map(([target]) => ({ label: displayName(target), note: formatPercent(target.probability), probability: target.probability }));
    this.tabs = new Tabs("Targets", items, this.panelId, (i) => this.select(i));
    this.panel.setAttribute("role", "tabpanel");
    header.append(this.tabs.element);
    return header;
  }

  viewBar() {
    const views = [["one", "One map"]];
    if (this.groups.length > 1) views.push(["side", "Side by side"]);
    if (this.groups.some((group) => group.length > 1)) views.push(["methods", "All methods"]);
    if (this.comparableGroups().length) views.push(["difference", "Difference"]);
    if (views.length === 1) return null;
    return make("div", { class: "viewbar" }, radioGroup("View", views, this.view, (view) => this.change({ view })), this.pinButton);
  }

  // The groups whose map can be subtracted from that of an earlier group.
  comparableGroups() {
    return this.groups.flatMap((first, i) => this.groups.slice(i + 1).filter((second) => comparable(first[0], second[0])));
  }

  aside() {
    const { options } = this;
    const redraw = (change) => (value) => { change(value); this.draw(); };
    const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05, value: options.opacity,
      input: redraw(() => { options.opacity = Number(opacity.value); }) });
    this.scale = make("canvas", { class: "scale", width: 257, height: 1, "aria-hidden": "true" });
    this.colours = labelledRow("Colours", selectBox(this.colormaps, options.colormap, redraw((value) => { options.colormap = value; }),
      { jet: "jet, as in the papers" }));
    this.ends = make("p", { class: "ends quiet" }, make("span", {}), make("span", {}));
    this.smooth = checkbox("Smooth between the cells", options.smooth, redraw((value) => { options.smooth = value; }));
    this.unseen = make("p", { class: "quiet" }, make("span", { class: "swatch hatch" }), " outside the model input");
    this.drawing = make("div", { class: "drawing" }, labelledRow("Opacity", opacity), this.colours, this.scale, this.ends, this.smooth);
    return make("aside", { "aria-label": "Controls" }, this.switches(),
      checkbox("Show the map", options.shown, redraw((value) => { options.shown = value; })), this.drawing, this.unseen);
  }

  switches() {
    const methods = [...new Set(this.record.targets.map((target) => target.method))];
    const layers = [...new Set(this.record.targets.map((target) => target.layer))];
    const element = make("div", { class: "switches" });
    if (methods.length > 1) {
      element.append(labelledRow("Method", selectBox(methods, this.method, (value) => this.change({ method: value }))));
    }
    if (layers.length > 1) {
      this.layers = selectBox(layers, this.layer, (value) => this.change({ layer: value }));
      element.append(labelledRow("Layer", this.layers));
    }
    return element.children.length ? element : null;
  }

  details() {
    const columns = ["", "score", "probability", "method", "layer", this.isClip ? "peak (x, y, frame)" : "peak (x, y)"];
    const rows = this.record.targets.map((target) => make("tr", {},
      make("th", { scope: "row", dir: "auto" }, displayName(target)),
      ...[formatNumber(target.score), target.probability === null ? "–" : formatNumber(target.probability), target.method, target.layer,
        target.empty ? "no positive evidence" : target.peak.filter((value) => value !== null).map(Math.round).join(", ")]
        .map((text) => make("td", {}, text))));
    const table = make("table", {}, make("caption", { class: "hidden" }, "All maps"),
      make("thead", {}, make("tr", {}, ...columns.map((text) => make(text ? "th" : "td", text ? { scope: "col" } : {}, text)))),
      make("tbody", {}, ...rows));
    const provenance = make("dl", {}, ...this.record.record.flatMap(([key, text]) =>
      [make("dt", {}, key), make("dd", { dir: "auto" }, text)]));
    const notes = this.record.text.notes.map((note) => make("p", { dir: "auto" }, note));
    return make("footer", {}, make("details", {}, make("summary", {}, "All numbers and their provenance"), ...notes,
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "All maps" }, table), provenance));
  }

  // The map of a group by the selected method and layer; else by the method alone; else the first.
  variant(group) {
    const sameMethod = group.filter((target) => target.method === this.method);
    return sameMethod.find((target) => target.layer === this.layer) || sameMethod[0] || group[0];
  }

  get target() {
    return this.variant(this.groups[this.hovered === null ? this.selected : this.hovered]);
  }

  change(state) {
    Object.assign(this, state);
    this.draw();
  }

  hover(i) {
    if (this.hovered === i) return;
    this.hovered = i;
    this.drawTarget();
  }

  select(i) {
    this.selected = i;
    this.hovered = null;
    this.draw();
  }

  onKey(event) {
    if (event.key.toLowerCase() !== "p" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!event.target.matches("select, input:not([type=checkbox]):not([type=radio]):not([type=range])")) this.togglePin();
  }

  togglePin(target = this.target) {
    this.pins = this.pins.includes(target) ? this.pins.filter((pin) => pin !== target) : [...this.pins, target];
    this.draw();
  }

  onFrame(frame) {
    if (this.frame === frame) return;
    this.frame = frame;
    this.drawStage();
    for (const [stage, target] of this.smallStages) this.drawSmall(stage, target);
  }

  // A small stage of a clip shows the nearest embedded frame, and the map of that frame.
  drawSmall(stage, target) {
    const { frames } = this.record.seen;
    stage.show(target, frames.length ? frames[nearestFrame(frames, this.frame)].frame : this.frame);
  }

  drawStage() {
    const { target } = this;
    const subtracted = this.variant(this.groups[this.subtracted]);
    if (this.view === "difference" && comparable(target, subtracted)) this.stage.showDifference(target, subtracted, this.frame);
    else this.stage.show(target, this.frame);
  }

  draw() {
    const { target } = this;
    const showsSheet = this.view === "side" || this.view === "methods";
    this.drawTarget();
    this.single.hidden = showsSheet;
    this.sheet.hidden = !showsSheet;
    this.pinned.hidden = showsSheet || !this.pins.length;
    if (showsSheet) this.fill(this.sheet, this.sheetTargets());
    else this.fill(this.pinned, this.pins);
    this.pinButton.textContent = this.pins.includes(target) ? "Unpin" : "Pin this map";
    this.pinButton.hidden = this.view !== "one";
    this.drawPair();
  }

  // Draw the selected or hovered target, without the small stages.
  drawTarget() {
    const { target } = this;
    this.drawStage();
    if (this.words) this.words.mark(this.selected, this.groups.findIndex((group) => group.includes(target)));
    if (this.tabs) this.tabs.mark(this.selected);
    if (this.question) this.question.show(target);
    if (this.player) this.player.show(target);
    this.drawFacts(target);
  }

  // Fill a container with small stages of these targets; existing stages of the same targets are redrawn.
  fill(container, targets) {
    const same = this.smallStages.length === targets.length && this.smallStages.every(([, target], i) => target === targets[i]);
    if (same && this.filled === container) {
      for (const [stage, target] of this.smallStages) this.drawSmall(stage, target);
      return;
    }
    Object.assign(this, { smallStages: [], filled: container });
    container.replaceChildren(...targets.map((target) => this.figure(target, container === this.pinned)));
  }

  sheetTargets() {
    if (this.view === "methods") return this.groups[this.selected];
    return this.groups.map((group) => this.variant(group));
  }

  drawFacts(target) {
    const { record } = this;
    const origin = `${target.method} at ${target.layer}`;
    const score = target.kind === "sentence" ? `log p ${formatNumber(target.score)}` : `score ${formatNumber(target.score)}`;
    const probability = target.probability === null || target.kind === "sentence" ? [] : [`probability ${formatNumber(target.probability)}`];
    const subtracted = this.variant(this.groups[this.subtracted]);
    const [title, ...facts] = {
      one: () => [displayName(target), record.model, origin, score, ...probability],
      side: () => ["", record.model, origin],
      methods: () => [displayName(target), record.model, score, ...probability],
      difference: () => [`${displayName(target)} minus ${displayName(subtracted)}`, record.model, origin, ...this.differenceFacts(target, subtracted)],
    }[this.view]();
    this.facts.replaceChildren(...(title ? [make("strong", { dir: "auto" }, title)] : []), ...facts.map((text) => make("span", {}, text)));
    const label = displayName({ ...target, against: false });
    const preposition = target.against ? "against" : "for";
    if (target.empty) this.notice.textContent = `No positive evidence ${preposition} “${label}”: the map is nowhere positive.`;
    else this.notice.textContent = target.against ? `Counterfactual: this map shows the evidence against “${label}”.` : "";
    this.notice.hidden = !this.notice.textContent;
    this.unseen.hidden = !hasMargins(target, record);
    this.drawing.hidden = !target.map || Boolean(target.drawn);
    if (this.layers) {
      const layers = this.groups.flat().filter((variant) => variant.method === target.method).map((variant) => variant.layer);
      setOptions(this.layers, [...new Set(layers)], target.layer);
    }
    this.drawScale(this.view === "difference" ? "difference" : this.options.colormap, target);
  }

  // The size of the largest difference, which the colours do not show because they are scaled by it.
  differenceFacts(first, second) {
    if (!comparable(first, second)) return [];
    const maximum = Math.max(first.maximum, second.maximum);
    return [`largest difference ${formatPercent(maximum && maxDifference(first, second) / maximum)} of the higher map's maximum`];
  }

  drawScale(colormap, target) {
    const context = this.scale.getContext("2d");
    const image = context.createImageData(STEPS + 1, 1);
    const table = this.options.tables[colormap];
    for (let i = 0; i <= STEPS; i++) image.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    context.putImageData(image, 0, 0);
    const subtracted = this.variant(this.groups[this.subtracted]);
    const [low, high] = colormap === "difference" ? [`more for ${displayName(subtracted)}`, `more for ${displayName(target)}`] : ["none", "most evidence"];
    this.ends.firstChild.textContent = low;
    this.ends.lastChild.textContent = high;
    this.colours.hidden = colormap === "difference";
  }

  drawPair() {
    this.pair.hidden = this.view !== "difference";
    if (this.pair.hidden) return;
    const labels = Object.fromEntries(this.groups.map((group, i) => [String(i), displayName(group[0])]));
    const keys = Object.keys(labels);
    const selected = selectBox(keys, String(this.selected), (value) => this.select(Number(value)), labels);
    const subtracted = selectBox(keys, String(this.subtracted), (value) => this.change({ subtracted: Number(value) }), labels);
    const matches = comparable(this.target, this.variant(this.groups[this.subtracted]));
    const focused = [...this.pair.querySelectorAll("select")].indexOf(document.activeElement);
    this.pair.replaceChildren(labelledRow("Map of", selected), labelledRow("minus", subtracted),
      matches ? "" : make("p", { class: "quiet" }, "These two maps do not lie on the same grid; the first is shown."));
    if (focused >= 0) [selected, subtracted][focused].focus();
  }

  figure(target, pinned) {
    const stage = new Stage(this.record, this.options, "small");
    this.smallStages.push([stage, target]);
    this.drawSmall(stage, target);
    const hasVariants = this.view === "methods" || this.groups.some((group) => group.length > 1);
    const facts = [target.probability !== null && target.kind !== "sentence" ? formatPercent(target.probability) : formatNumber(target.score)];
    if (hasVariants) facts.push(`${target.method} at ${target.layer}`);
    if (target.empty) facts.push("no positive evidence");
    const unpin = make("button", { type: "button", "aria-label": `Unpin ${displayName(target)}`, click: () => this.togglePin(target) }, "Unpin");
    return make("figure", {}, stage.element, make("figcaption", {}, make("strong", { dir: "auto" }, displayName(target)),
      make("span", { class: "quiet" }, facts.join(" · ")), pinned ? unpin : null));
  }
}

// Group the maps of one label, which differ in method and layer.
function groupTargets(targets) {
  const groups = new Map();
  for (const target of targets) {
    const key = JSON.stringify([target.kind, target.position, target.label, target.against]);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(target);
  }
  return [...groups.values()];
}
