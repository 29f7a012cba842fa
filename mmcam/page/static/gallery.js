// A gallery of many results: a card for each map, drawn when it scrolls into view and opened in a dialog.

const ORDERS = {
  given: ["as given", () => 0],
  high: ["score, highest first", byNumber("score", -1)],
  low: ["score, lowest first", byNumber("score", 1)],
  likely: ["probability, highest first", byNumber("probability", -1)],
  unlikely: ["probability, lowest first", byNumber("probability", 1)],
  label: ["label", (a, b) => a.label.localeCompare(b.label)],
  file: ["file", (a, b) => a.file.localeCompare(b.file)],
};

// Compare two cards by a number, upwards (1) or downwards (-1); cards without the number come last.
function byNumber(key, direction) {
  return (a, b) => {
    if (a[key] === null || b[key] === null) return (a[key] === null) - (b[key] === null);
    return direction * (a[key] - b[key]);
  };
}

class Gallery {
  constructor(head, readJson) {
    Object.assign(this, { head, readJson, records: new Map(), query: "", label: "", order: "given" });
    this.hasVariants = new Set(head.cards.map((card) => `${card.method} at ${card.layer}`)).size > 1;
    const tables = Object.fromEntries(Object.entries(head.tables).map(([key, text]) => [key, decodeBase64(text)]));
    this.options = { tables, colormap: head.colormap, opacity: 0.55, smooth: true, shown: true };
    this.observer = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && this.drawCard(entry.target)),
      { rootMargin: "400px" });
    this.cards = new Map(head.cards.map((card) => [this.makeCard(card), card]));
    this.elements = [...this.cards.keys()];
    this.grid = make("ul", { class: "cards" });
    this.count = make("p", { class: "quiet", role: "status" });
    this.closeButton = make("button", { type: "button", class: "close", click: () => this.dialog.close() }, "Close");
    this.dialog = make("dialog", { "aria-label": "One result", close: () => this.onClose() });
    this.element = make("div", { class: "gallery" }, this.heading(), this.grid, this.dialog);
    this.arrange();
  }

  heading() {
    const labels = [...new Set(this.head.cards.map((card) => card.label))].sort((a, b) => a.localeCompare(b));
    const search = make("input", { type: "search", placeholder: "label, text, file, method", autocomplete: "off", spellcheck: "false",
      input: () => this.change({ query: search.value.trim().toLocaleLowerCase() }) });
    // The "=" keeps a label that is empty apart from the value "" for all labels.
    const names = Object.fromEntries(labels.map((label) => [`=${label}`, label]));
    const label = selectBox(["", ...Object.keys(names)], "", (value) => this.change({ label: value }), { "": "all labels", ...names });
    const order = selectBox(Object.keys(ORDERS), "given", (value) => this.change({ order: value }),
      Object.fromEntries(Object.entries(ORDERS).map(([key, [text]]) => [key, text])));
    const shown = checkbox("Show the maps", true, (value) => this.grid.classList.toggle("bare", !value));
    return make("header", {}, make("h1", {}, "Gallery"),
      make("div", { class: "finder", role: "search" }, labelledRow("Find", search), labelledRow("Label", label), labelledRow("Order", order), shown), this.count);
  }

  change(state) {
    Object.assign(this, state);
    this.arrange();
  }

  arrange() {
    const matches = (card) => (!this.label || card.label === this.label.slice(1)) &&
      [card.label, card.title, card.file, card.model, card.method, card.layer].join("\n").toLocaleLowerCase().includes(this.query);
    const compare = ORDERS[this.order][1];
    const visible = this.elements.filter((element) => matches(this.cards.get(element)))
      .sort((a, b) => compare(this.cards.get(a), this.cards.get(b)));
    this.grid.replaceChildren(...visible);
    this.count.textContent = `${visible.length} of ${this.elements.length} maps`;
  }

  makeCard(card) {
    const label = displayName(card);
    const value = card.kind === "sentence" || card.probability === null ? formatNumber(card.score) : formatPercent(card.probability);
    const thumbnail = make("span", { class: "thumb" });
    const button = make("button", { type: "button", click: () => this.open(card, button) }, thumbnail,
      make("span", { class: "line" }, make("strong", { dir: "auto" }, label), make("span", { class: "quiet" }, value)),
      make("span", { class: "quiet clip", dir: "auto" }, card.empty ? "no positive evidence" : card.title),
      this.hasVariants ? make("span", { class: "quiet" }, `${card.method} at ${card.layer}`) : null);
    const element = make("li", {}, button);
    this.observer.observe(element);
    return element;
  }

  record(index) {
    if (!this.records.has(index)) this.records.set(index, this.readJson(`record-${index}`));
    return this.records.get(index);
  }

  drawCard(element) {
    this.observer.unobserve(element);
    const card = this.cards.get(element);
    const record = this.record(card.record);
    const target = record.targets[card.target];
    const stage = new Stage(record, this.options, "small");
    stage.show(target, target.peak[2] || 0);
    element.querySelector(".thumb").replaceChildren(stage.element);
  }

  open(card, button) {
    this.opener = button;
    const viewer = new Viewer(this.record(card.record), this.head, card.target);
    this.dialog.replaceChildren(this.closeButton, viewer.element);
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  onClose() {
    this.dialog.replaceChildren();
    this.opener.focus();
  }
}
