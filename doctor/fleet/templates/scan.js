"use strict";
// rows: [path, state, cause, evidence, last step, loss, ended (Unix seconds), job, bytes, report, cluster]
const {rows, states, reports, open: openWord} = JSON.parse(document.getElementById("data").textContent);
const PAGE = 200, STATE = 1, ENDED = 6, REPORT = 9;
let shown = rows, page = 0, key = -1, down = false, state = "";
const body = document.querySelector("#runs tbody"), find = document.getElementById("find");

function cell(text, kind) {
  const td = document.createElement("td");
  td.textContent = text ?? "";
  if (kind) td.className = kind;
  return td;
}

function draw() {
  body.replaceChildren(...shown.slice(page * PAGE, (page + 1) * PAGE).map(row => {
    const tr = document.createElement("tr");
    const ended = row[ENDED] ? new Date(row[ENDED] * 1000).toISOString().slice(0, 16).replace("T", " ") : "";
    tr.append(cell(row[0]), cell(states[row[STATE]], row[STATE]), cell(row[2]), cell(row[3], "text"), cell(row[4]), cell(row[5]), cell(ended), cell(row[7]), cell(row[8]));
    const last = cell("");
    if (row[REPORT]) {
      const a = document.createElement("a");
      a.href = reports + row[REPORT];
      a.textContent = openWord;
      last.append(a);
    }
    tr.append(last);
    return tr;
  }));
  document.getElementById("place").textContent = shown.length ? `${page * PAGE + 1}–${Math.min(shown.length, (page + 1) * PAGE)} / ${shown.length}` : "0";
  document.getElementById("previous").disabled = page === 0;
  document.getElementById("next").disabled = (page + 1) * PAGE >= shown.length;
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
    if (good) add("rect", {x: i * 10, y: 66 - high, width: 9, height: high, fill: "#2e7d32"});
    if (bad) add("rect", {x: i * 10, y: 66 - high - low, width: 9, height: low, fill: "#c62828"});
  });
  [first, last].forEach((time, i) => add("text", {x: i ? 1240 : 0, y: 84, "text-anchor": i ? "end" : "start", "font-size": 12, fill: "currentColor"},
    new Date(time * 1000).toISOString().slice(0, 16).replace("T", " ")));
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
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
timeline();
select();
