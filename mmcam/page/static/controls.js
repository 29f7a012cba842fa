// The controls beside a stage.

let made = 0;

function unique(text) {
  made += 1;
  return `${text}-${made}`;
}

function row(label, control, ...more) {
  control.id = unique("control");
  return make("div", { class: "row" }, make("label", { for: control.id }, label), control, ...more);
}

function choice(options, value, onchange, words = {}) {
  const select = make("select", { change: () => onchange(select.value) });
  setOptions(select, options, value, words);
  return select;
}

function setOptions(select, options, value, words = {}) {
  select.replaceChildren(...options.map((option) => make("option", { value: option }, words[option] || option)));
  select.value = value;
}

function tick(label, value, onchange) {
  const box = make("input", { type: "checkbox", id: unique("tick"), change: () => onchange(box.checked) });
  box.checked = value;
  return make("div", { class: "tick" }, box, make("label", { for: box.id }, label));
}

// One of a few, shown side by side.
function segments(title, options, value, onchange) {
  const group = unique("segments");
  const inputs = options.map(([key, label]) => {
    const input = make("input", { type: "radio", name: group, id: unique("segment"), value: key, change: () => onchange(key) });
    input.checked = key === value;
    return [input, make("label", { for: input.id }, label)];
  });
  return make("fieldset", { class: "segments" }, make("legend", { class: "hidden" }, title), ...inputs.flat());
}

// Tabs as screen readers and arrow keys know them. An item is {label, note, share}.
class Tabs {
  constructor(title, items, panel, onchoose) {
    this.onchoose = onchoose;
    this.tabs = items.map((item, i) =>
      make("button", {
        type: "button", role: "tab", class: "tab", "aria-controls": panel, dir: "auto",
        click: () => this.choose(i), keydown: (event) => this.key(event, i),
      }, make("span", { class: "text" }, item.label), item.note ? make("span", { class: "note" }, item.note) : null, bar(item.share)));
    this.element = make("div", { role: "tablist", class: "tabs", "aria-label": title }, ...this.tabs);
  }

  key(event, from) {
    const count = this.tabs.length;
    const to = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: count - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.choose((to + count) % count);
    this.tabs[(to + count) % count].focus();
  }

  choose(chosen) {
    this.mark(chosen);
    this.onchoose(chosen);
  }

  mark(chosen) {
    this.tabs.forEach((tab, i) => {
      tab.setAttribute("aria-selected", String(i === chosen));
      tab.tabIndex = i === chosen ? 0 : -1;
    });
  }
}

// A share as a thin bar.
function bar(share) {
  if (share === null || share === undefined) return null;
  const filled = make("span", { class: "bar", "aria-hidden": "true" });
  filled.style.setProperty("--share", share);
  return filled;
}

// The words of a caption: those with a map are buttons, and the map follows.
class Words {
  constructor(record, groups, onhover, onchoose) {
    this.buttons = new Map();
    const byPosition = new Map(groups.map((group, i) => [group[0].kind === "sentence" ? "all" : group[0].position, i]));
    const { caption, words } = record.text;
    const line = make("div", {
      class: "words", dir: "auto", role: "group", "aria-label": "Words of the caption",
      keydown: (event) => this.key(event), pointerleave: () => onhover(null),
    });
    let end = 0;
    for (const word of words) {
      const start = caption.indexOf(word.text, end);
      const joined = start > 0 && start === end;
      if (start >= 0) end = start + word.text.length;
      line.append(this.word(word, byPosition.get(word.position), joined, onhover, onchoose));
    }
    this.element = make("div", {}, line);
    if (byPosition.has("all")) {
      const i = byPosition.get("all");
      const whole = this.button(i, "chip", onhover, onchoose, "Whole sentence", null);
      whole.addEventListener("pointerleave", () => onhover(null));
      this.element.append(make("p", { class: "whole" }, whole,
        make("span", { class: "quiet with-mouse" }, "Point at a word, or tab through them: the map follows. Click to keep it."),
        make("span", { class: "quiet with-touch" }, "Tap a word: the map follows.")));
    }
  }

  word(word, i, joined, onhover, onchoose) {
    const kind = joined ? "word joined" : "word";
    if (i === undefined) return make("span", { class: `${kind} plain` }, word.text, make("span", { class: "note" }, percent(word.probability)));
    return this.button(i, kind, onhover, onchoose, word.text, word.probability);
  }

  button(i, kind, onhover, onchoose, text, share) {
    const made = make("button", {
      type: "button", class: kind, "aria-pressed": "false",
      pointerenter: (event) => event.pointerType === "mouse" && onhover(i), focus: () => onchoose(i), click: () => onchoose(i),
    }, make("span", { class: "text" }, text), bar(share), share === null ? null : make("span", { class: "note" }, percent(share)));
    this.buttons.set(i, made);
    return made;
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...event.currentTarget.querySelectorAll("button")];
    const next = all[all.indexOf(document.activeElement) + step];
    if (next) next.focus();
    event.preventDefault();
  }

  mark(chosen, shown) {
    for (const [i, button] of this.buttons) {
      button.setAttribute("aria-pressed", String(i === chosen));
      button.classList.toggle("shown", i === shown);
    }
  }
}

// A question, each word on a ground as strong as its part in the score.
class Question {
  constructor(record) {
    this.line = make("h1", { dir: "auto" }, record.text.question);
    this.legend = make("p", { class: "quiet legend", hidden: true }, make("span", { class: "swatch for" }), " speaks for the answer ",
      make("span", { class: "swatch against" }), " against it");
    this.element = make("div", {}, this.line, this.legend);
    this.question = record.text.question;
  }

  show(target) {
    this.legend.hidden = !target.words.length;
    if (!target.words.length) return;
    const most = Math.max(...target.words.map(([, part]) => Math.abs(part || 0))) || 1;
    const lower = this.question.toLowerCase();
    const parts = [];
    let end = 0;
    for (const [word, part] of target.words) {
      const start = lower.indexOf(word.toLowerCase(), end);
      if (start < 0) continue;
      parts.push(this.question.slice(end, start), this.shaded(this.question.slice(start, start + word.length), part || 0, most));
      end = start + word.length;
    }
    this.line.replaceChildren(...parts, this.question.slice(end));
  }

  shaded(text, part, most) {
    const said = make("span", { class: part < 0 ? "shaded against" : "shaded for", title: digits(part) }, text);
    said.style.setProperty("--part", Math.abs(part) / most);
    return said;
  }
}
