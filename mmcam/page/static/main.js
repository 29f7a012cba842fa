// Build the page from its JSON blocks.

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

const head = readJson("head");
const main = document.getElementById("main");
if (head.kind === "gallery") main.append(new Gallery(head, readJson).element);
else if (readJson("record-0").targets.length === 0) main.append(make("p", { class: "notice" }, "There is no map to show."));
else main.append(new Viewer(readJson("record-0"), head).element);
