// Many results: a card for each map, drawn when it comes into sight, and opened as a page of its own.

const ORDERS = {
  given: ["as given", () => 0],
  high: ["score, highest first", (one, other) => above(other.score, one.score)],
  low: ["score, lowest first", (one, other) => above(one.score, other.score)],
  likely: ["probability, highest first", (one, other) => above(other.probability, one.probability)],
  unlikely: ["probability, lowest first", (one, other) => above(one.probability, other.probability)],
  label: ["label", (one, other) => one.label.localeCompare(other.label)],
  file: ["file", (one, other) => one.file.localeCompare(other.file)],
};

// What has no number comes last, in either order.
function above(one, other) {
  if (one === null || other === null) return (one === null) - (other === null);
  return one - other;
}

class Gallery {
  constructor(head, read) {
    Object.assign(this, { head, read, records: new Map(), query: "", label: "", order: "given" });
    this.several = new Set(head.cards.map((card) => `${card.method} at ${card.layer}`)).size > 1;
    const tables = Object.fromEntries(Object.entries(head.tables).map(([key, text]) => [key, bytes(text)]));
    this.look = { tables, colormap: head.colormap, opacity: 0.55, smooth: true, shown: true };
    this.watcher = new IntersectionObserver((entries) => entries.forEach((entry) => entry.isIntersecting && this.fill(entry.target)),
      { rootMargin: "400px" });
    this.cards = new Map(head.cards.map((card) => [this.card(card), card]));
    this.byElement = [...this.cards.keys()];
    this.grid = make("ul", { class: "cards" });
    this.count = make("p", { class: "quiet", role: "status" });
    this.close = make("button", { type: "button", class: "close", click: () => this.dialog.close() }, "Close");
    this.dialog = make("dialog", { "aria-label": "One result", close: () => this.closed() });
    this.element = make("div", { class: "gallery" }, this.heading(), this.grid, this.dialog);
    this.arrange();
  }

  heading() {
    const labels = [...new Set(this.head.cards.map((card) => card.label))].sort((one, other) => one.localeCompare(other));
    const search = make("input", { type: "search", placeholder: "label, text, file, method", autocomplete: "off", spellcheck: "false",
      input: () => this.change({ query: search.value.trim().toLocaleLowerCase() }) });
    const names = Object.fromEntries(labels.map((label) => [`=${label}`, label]));
    const only = choice(["", ...Object.keys(names)], "", (value) => this.change({ label: value }), { "": "all labels", ...names });
    const order = choice(Object.keys(ORDERS), "given", (value) => this.change({ order: value }),
      Object.fromEntries(Object.entries(ORDERS).map(([key, [words]]) => [key, words])));
    const shown = tick("Show the maps", true, (value) => this.grid.classList.toggle("bare", !value));
    return make("header", {}, make("h1", {}, "Gallery"),
      make("div", { class: "finder", role: "search" }, row("Find", search), row("Label", only), row("Order", order), shown), this.count);
  }

  change(what) {
    Object.assign(this, what);
    this.arrange();
  }

  arrange() {
    const fits = (card) => (!this.label || card.label === this.label.slice(1)) &&
      [card.label, card.title, card.file, card.model, card.method, card.layer].join("\n").toLocaleLowerCase().includes(this.query);
    const order = ORDERS[this.order][1];
    const found = this.byElement.filter((element) => fits(this.cards.get(element)))
      .sort((one, other) => order(this.cards.get(one), this.cards.get(other)));
    this.grid.replaceChildren(...found);
    this.count.textContent = `${found.length} of ${this.byElement.length} maps`;
  }

  card(card) {
    const label = name(card);
    const share = card.kind === "sentence" || card.probability === null ? digits(card.score) : percent(card.probability);
    const frame = make("span", { class: "thumb" });
    const button = make("button", { type: "button", click: () => this.open(card, button) }, frame,
      make("span", { class: "line" }, make("strong", { dir: "auto" }, label), make("span", { class: "quiet" }, share)),
      make("span", { class: "quiet clip", dir: "auto" }, card.empty ? "no positive evidence" : card.title),
      this.several ? make("span", { class: "quiet" }, `${card.method} at ${card.layer}`) : null);
    const element = make("li", {}, button);
    this.watcher.observe(element);
    return element;
  }

  record(number) {
    if (!this.records.has(number)) this.records.set(number, this.read(`record-${number}`));
    return this.records.get(number);
  }

  fill(element) {
    this.watcher.unobserve(element);
    const card = this.cards.get(element);
    const record = this.record(card.record);
    const target = record.targets[card.target];
    const stage = new Stage(record, this.look, "small");
    stage.show(target, target.peak[2] || 0);
    element.querySelector(".thumb").replaceChildren(stage.element);
  }

  open(card, button) {
    this.opener = button;
    const viewer = new Viewer(this.record(card.record), this.head, card.target);
    this.dialog.replaceChildren(this.close, viewer.element);
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
  }

  closed() {
    this.dialog.replaceChildren();
    this.opener.focus();
  }
}
