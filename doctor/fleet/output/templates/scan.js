"use strict";
// rows: [path, state, cause, evidence, last step, loss, ended (Unix seconds), job, bytes, report, cluster]
const {rows, states, reports} = JSON.parse(document.getElementById("data").textContent);
const PAGE = 200, STATE = 1, ENDED = 6, REPORT = 9;
let shown = rows, page = 0, key = -1, down = false, state = "";
const body = document.querySelector("#runs tbody"), find = document.getElementById("find");

// The folder that all runs share: said once, at the top of the page.
const above = rows.reduce((shared, [path]) => {
  while (!path.startsWith(shared)) shared = shared.slice(0, shared.lastIndexOf("/", shared.length - 2) + 1);
  return shared;
}, rows.length ? rows[0][0].slice(0, rows[0][0].lastIndexOf("/") + 1) : "");

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text ?? "";
  if (kind) td.className = kind;
  return td;
}

function draw() {
  body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(row => {
    const tr = document.createElement("tr"), path = cell(row[REPORT] ? "" : row[0].slice(above.length)), state = cell("");
    path.title = row[0];
    if (row[REPORT]) {
      const a = path.appendChild(document.createElement("a"));
      a.href = reports + row[REPORT];
      a.textContent = row[0].slice(above.length);
    }
    const chip = state.appendChild(document.createElement("span"));
    chip.className = "chip " + row[STATE];
    chip.textContent = states[row[STATE]];
    tr.append(path, state, cell(row[2]), cell(row[3], "text"), cell(row[4], "number"), cell(row[5], "number"), cell(when(row[ENDED])), cell(row[7]), cell(bytes(row[8]), "number"));
    return tr;
  }));
  document.getElementById("place").textContent = shown.length ? `${page * PAGE + 1}–${Math.min(shown.length, (page + 1) * PAGE)} / ${shown.length}` : "0";
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = (page + 1) * PAGE >= shown.length;
}

function when(seconds) {
  return seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") : "";
}

function bytes(size) {
  const unit = size < 1024 ? 0 : Math.min(3, Math.floor(Math.log2(size) / 10));
  return (size / 1024 ** unit).toFixed(unit ? 1 : 0) + " " + ["B", "KiB", "MiB", "GiB"][unit];
}

function select() {
  const word = find.value.toLowerCase();
  shown = rows.filter(row => (!state || row[STATE] === state) && (!word || row.some(value => String(value ?? "").toLowerCase().includes(word))));
  if (key >= 0) shown = shown.slice().sort((a, b) => compare(a[key], b[key]) * (down ? -1 : 1));
  page = 0;
  for (const button of document.querySelectorAll("[data-state]")) button.setAttribute("aria-pressed", String(button.dataset.state === state));
  draw();
}

function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === "") return 1;
  if (b === null || b === "") return -1;
  return a < b ? -1 : 1;
}

function timeline() {
  const svg = document.getElementById("timeline"), dated = rows.filter(row => row[ENDED]);
  if (!dated.length) return;
  const times = dated.map(row => row[ENDED]);
  const first = times.reduce((a, b) => Math.min(a, b)), last = times.reduce((a, b) => Math.max(a, b)), bins = 124;
  const counts = Array.from({length: bins}, () => [0, 0]);
  for (const row of dated) counts[Math.min(bins - 1, Math.floor(bins * (row[ENDED] - first) / (last - first || 1)))][row[STATE] === "failed" ? 0 : 1]++;
  const most = Math.max(...counts.map(([bad, good]) => bad + good));
  const add = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
    if (text) element.textContent = text;
    svg.append(element);
  };
  counts.forEach(([bad, good], i) => {
    const high = 60 * good / most, low = 60 * bad / most;
    if (good) add("rect", {x: i * 10, y: 66 - high, width: 9, height: high, class: "sound"});
    if (bad) add("rect", {x: i * 10, y: 66 - high - low, width: 9, height: low, class: "failed"});
  });
  [first, last].forEach((time, i) => add("text", {x: i ? 1240 : 0, y: 84, "text-anchor": i ? "end" : "start"}, when(time)));
}

find.addEventListener("input", select);
document.getElementById("previous").addEventListener("click", () => { page--; draw(); });
document.getElementById("next").addEventListener("click", () => { page++; draw(); });
for (const button of document.querySelectorAll("[data-state]")) button.addEventListener("click", () => { state = button.dataset.state; select(); });
for (const button of document.querySelectorAll("[data-find]")) button.addEventListener("click", event => {
  event.preventDefault();
  find.value = button.dataset.find;
  state = "";
  select();
  document.getElementById("runs").scrollIntoView();
});
for (const head of document.querySelectorAll("th[data-key]")) {
  const sort = () => {
    down = key === Number(head.dataset.key) ? !down : false;
    key = Number(head.dataset.key);
    for (const other of document.querySelectorAll("th[data-key]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    select();
  };
  head.querySelector("button").addEventListener("click", sort);
}
timeline();
select();
