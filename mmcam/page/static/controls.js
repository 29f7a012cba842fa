// The controls beside a stage.

let idCount = 0;

function uniqueId(prefix) {
  idCount += 1;
  return `${prefix}-${idCount}`;
}

function labelledRow(label, control, ...more) {
  control.id = uniqueId("control");
  return make("div", { class: "row" }, make("label", { for: control.id }, label), control, ...more);
}

// A select element; `labels` are the texts of its values, by default the values themselves.
function selectBox(values, value, onchange, labels = {}) {
  const select = make("select", { change: () => onchange(select.value) });
  setOptions(select, values, value, labels);
  return select;
}

function setOptions(select, values, value, labels = {}) {
  select.replaceChildren(...values.map((option) => make("option", { value: option }, labels[option] || option)));
  select.value = value;
}

function checkbox(label, value, onchange) {
  const input = make("input", { type: "checkbox", id: uniqueId("tick"), change: () => onchange(input.checked) });
  input.checked = value;
  return make("div", { class: "tick" }, input, make("label", { for: input.id }, label));
}

// Radio buttons drawn as segments side by side. `items` are pairs of a value and a label.
function radioGroup(title, items, value, onchange) {
  const group = uniqueId("segments");
  const inputs = items.map(([key, label]) => {
    const input = make("input", { type: "radio", name: group, id: uniqueId("segment"), value: key, change: () => onchange(key) });
    input.checked = key === value;
    return [input, make("label", { for: input.id }, label)];
  });
  return make("fieldset", { class: "segments" }, make("legend", { class: "hidden" }, title), ...inputs.flat());
}

// Tabs by the ARIA pattern, moved by the arrow keys. An item is {label, note, probability}.
class Tabs {
  constructor(title, items, panel, onselect) {
    this.onselect = onselect;
    this.tabs = items.map((item, i) =>
      make("button", {
        type: "button", role: "tab", class: "tab", "aria-controls": panel, dir: "auto",
        click: () => this.select(i), keydown: (event) => this.onKey(event, i),
      }, make("span", { class: "text" }, item.label), item.note ? make("span", { class: "note" }, item.note) : null, probabilityBar(item.probability)));
    this.element = make("div", { role: "tablist", class: "tabs", "aria-label": title }, ...this.tabs);
  }

  onKey(event, from) {
    const count = this.tabs.length;
    const to = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.select((to + count) % count);
    this.tabs[(to + count) % count].focus();
  }

  select(index) {
    this.mark(index);
    this.onselect(index);
  }

  mark(selected) {
    this.tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === selected));
      tab.tabIndex = i === selected ? 0 : -1;
    });
  }
}

// A probability as a thin bar.
function probabilityBar(probability) {
  if (probability === null || probability === undefined) return null;
  const element = make("span", { class: "bar", "aria-hidden": "true" });
  element.style.setProperty("--share", probability);
  return element;
}

// The words of a caption; words with a map are buttons that show it on hover, focus and click.
class CaptionWords {
  constructor(record, groups, onhover, onselect) {
    this.buttons = new Map();
    const byPosition = new Map(groups.map((group, i) => [group[0].kind === "sentence" ? "all" : group[0].position, i]));
    const { caption, words } = record.text;
    const line = make("div", {
      class: "words", dir: "auto", role: "group", "aria-label": "Words of the caption",
      keydown: (event) => this.onKey(event), pointerleave: () => onhover(null),
    });
    let end = 0;
    for (const word of words) {
      const start = caption.indexOf(word.text, end);
      const joined = start > 0 && start === end;
      if (start >= 0) end = start + word.text.length;
      line.append(this.word(word, byPosition.get(word.position), joined, onhover, onselect));
    }
    this.element = make("div", {}, line);
    if (byPosition.has("all")) {
      const i = byPosition.get("all");
      const sentence = this.button(i, "chip", onhover, onselect, "Whole sentence", null);
      sentence.addEventListener("pointerleave", () => onhover(null));
      this.element.append(make("p", { class: "whole" }, sentence,
        make("span", { class: "quiet with-mouse" }, "Hover over a word, or tab through the words, to see its map. Click to keep it."),
        make("span", { class: "quiet with-touch" }, "Tap a word to see its map.")));
    }
  }

  word(word, i, joined, onhover, onselect) {
    const className = joined ? "word joined" : "word";
    if (i === undefined) return make("span", { class: `${className} plain` }, word.text, make("span", { class: "note" }, formatPercent(word.probability)));
    return this.button(i, className, onhover, onselect, word.text, word.probability);
  }

  button(i, className, onhover, onselect, text, probability) {
    const button = make("button", {
      type: "button", class: className, "aria-pressed": "false",
      pointerenter: (event) => event.pointerType === "mouse" && onhover(i), focus: () => onselect(i), click: () => onselect(i),
    }, make("span", { class: "text" }, text), probabilityBar(probability), probability === null ? null : make("span", { class: "note" }, formatPercent(probability)));
    this.buttons.set(i, button);
    return button;
  }

  onKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const buttons = [...event.currentTarget.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) next.focus();
    event.preventDefault();
  }

  mark(selected, shown) {
    for (const [i, button] of this.buttons) {
      button.setAttribute("aria-pressed", String(i === selected));
      button.classList.toggle("shown", i === shown);
    }
  }
}

// A question, whose words are shaded by their contribution to the score.
class QuestionWords {
  constructor(record) {
    this.heading = make("h1", { dir: "auto" }, record.text.question);
    this.legend = make("p", { class: "quiet legend", hidden: true }, make("span", { class: "swatch for" }), " evidence for the answer ",
      make("span", { class: "swatch against" }), " evidence against it");
    this.element = make("div", {}, this.heading, this.legend);
    this.question = record.text.question;
  }

  show(target) {
    this.legend.hidden = !target.words.length;
    if (!target.words.length) return;
    const maximum = Math.max(...target.words.map(([, contribution]) => Math.abs(contribution || 0))) || 1;
    const lower = this.question.toLowerCase();
    const children = [];
    let end = 0;
    for (const [word, contribution] of target.words) {
      const start = lower.indexOf(word.toLowerCase(), end);
      if (start < 0) continue;
      children.push(this.question.slice(end, start), this.shaded(this.question.slice(start, start + word.length), contribution || 0, maximum));
      end = start + word.length;
    }
    this.heading.replaceChildren(...children, this.question.slice(end));
  }

  shaded(text, contribution, maximum) {
    const span = make("span", { class: contribution < 0 ? "shaded against" : "shaded for", title: formatNumber(contribution) }, text);
    span.style.setProperty("--part", Math.abs(contribution) / maximum);
    return span;
  }
}
