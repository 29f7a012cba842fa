// From the data in the page to what is seen of it.

function read(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

const head = read("head");
const start = document.getElementById("main");
if (head.kind === "gallery") start.append(new Gallery(head, read).element);
else if (read("record-0").targets.length === 0) start.append(make("p", { class: "notice" }, "There is no map to show."));
else start.append(new Viewer(read("record-0"), head).element);
