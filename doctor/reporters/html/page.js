"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
const state = {lang: data.lang, theme: "auto", over: "steps", log: false, smooth: null};
const page = () => document.getElementById("page-" + state.lang);
const wording = (name, values = {}) => (data.words[state.lang][name] || "").replace(/\{(\w+)\}/g, (_, key) => values[key]);
const escapeHtml = value => String(value).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// --- where the reader is: language, theme and place, in the address and remembered

// The address ends with #place-language, as every link of the page does, and with &light or &dark where the reader chose one.
const remembered = name => { try { return localStorage.getItem("lfdoctor:" + name); } catch { return null; } };
const remember = (name, value) => { try { localStorage.setItem("lfdoctor:" + name, value); } catch { /* private mode: the address holds it */ } };
const own = "language:" + location.pathname;
const sections = () => all("[data-place]", page());
const TOP = 60;

// The section that the reader has in view, and how far its top is from the top of the window.
function here() {
  const line = Math.max(TOP, innerHeight / 3);
  const inView = sections().filter(section => section.getBoundingClientRect().top <= line).pop() || sections()[0];
  return {place: inView.dataset.place, offset: inView.getBoundingClientRect().top};
}

function goTo({place, offset}) {
  const target = sections().find(section => section.dataset.place === place) || document.getElementById(place + "-" + state.lang);
  if (target) scrollTo({top: scrollY + target.getBoundingClientRect().top - offset, behavior: "instant"});
}

function writeAddress() {
  const address = "#" + here().place + "-" + state.lang + (state.theme === "auto" ? "" : "&" + state.theme);
  if (address !== location.hash) try { history.replaceState(null, "", address); } catch { /* a frame without an address */ }
}

function readAddress() {
  const [target, theme] = decodeURIComponent(location.hash.slice(1)).split("&");
  const [, place, lang] = target.match(/^(.*)-(\w+)$/) || [];
  const known = name => name in data.words;
  const saved = remembered(own);
  state.theme = ["light", "dark"].includes(theme) ? theme : remembered("theme") || "auto";
  setLanguage(known(lang) ? lang : known(saved) ? saved : data.lang);
  if (place && place !== "top") goTo({place, offset: TOP});
}

// --- language, theme, copy

function showStatus(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(showStatus.timer);
  showStatus.timer = setTimeout(() => { status.textContent = ""; }, 2000);
}

function setLanguage(lang) {
  state.lang = lang;
  root.lang = lang;
  all(".page").forEach(section => { section.hidden = section.id !== "page-" + lang; });
  const title = page().querySelector("h1").textContent;
  document.title = title + " · " + page().querySelector(".path").textContent;
  setTheme(state.theme);
}

function chooseLanguage(lang) {
  const place = here();
  setLanguage(lang);
  goTo(place);
  remember(own, lang);
  writeAddress();
}

function chooseTheme(theme) {
  setTheme(theme);
  remember("theme", theme);
  writeAddress();
}

function setTheme(theme) {
  state.theme = theme;
  if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  all("button.theme").forEach(button => { button.textContent = button.title = wording("html_theme", {theme: wording("html_theme_" + theme)}); });
  draw();
}

async function copy(content) {
  try {
    await navigator.clipboard.writeText(content);
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = content;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  showStatus(wording("html_copied"));
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data.yaml], {type: "application/yaml"}));
  link.download = data.yaml_name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.lang) { chooseLanguage(button.dataset.lang); page().querySelector(`[data-lang="${state.lang}"]`).focus({preventScroll: true}); }
  else if (button.classList.contains("theme")) chooseTheme({auto: "light", light: "dark", dark: "auto"}[state.theme]);
  else if (button.dataset.excerpt) copy(data.excerpts[state.lang][button.dataset.excerpt]);
  else if (button.dataset.copy !== undefined) copy(button.dataset.copy);
  else if (button.classList.contains("copy-yaml")) copy(data.yaml);
  else if (button.classList.contains("download")) download();
  else if (button.dataset.over) { state.over = button.dataset.over; syncZoom.range.clear(); draw(); }
  else if (button.classList.contains("log")) { state.log = !state.log; draw(); }
  else if (button.classList.contains("reset")) all(".canvas", page()).forEach(plot => plot.data && Plotly.relayout(plot, {"xaxis.autorange": true, "yaxis.autorange": true}));
});
document.addEventListener("input", event => {
  if (!event.target.classList.contains("smooth")) return;
  state.smooth = Number(event.target.value);
  draw();
});
addEventListener("beforeprint", () => { root.dataset.theme = "light"; });
addEventListener("afterprint", () => setTheme(state.theme));
addEventListener("scroll", () => { clearTimeout(writeAddress.timer); writeAddress.timer = setTimeout(writeAddress, 200); }, {passive: true});
addEventListener("hashchange", () => { if (!location.hash.includes("&")) writeAddress(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());

// --- plots

const COLOURS = ["#3b76c4", "#d1701d", "#2f9e6e", "#8a5cc9", "#c2568c", "#3aa6b9", "#7d8794", "#c4513b"];
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
const clocks = new Map(data.curves.filter(curve => curve.metric === "seconds").map(curve => [curve.attempt, curve]));

// Seconds at a step, interpolated between the two nearest known steps.
function secondsAt(clock, step) {
  const {at, values} = clock;
  let low = 0, high = at.length - 1;
  if (step <= at[0]) return values[0];
  if (step >= at[high]) return values[high];
  while (high - low > 1) { const middle = (low + high) >> 1; if (at[middle] <= step) low = middle; else high = middle; }
  const span = at[high] - at[low];
  return span ? values[low] + (values[high] - values[low]) * (step - at[low]) / span : values[low];
}

// Exponential moving average; the default weight is that of LLaMA-Factory's loss plots (extras/ploting.py).
function smoothed(values, given) {
  const weight = given ?? 1.8 * (1 / (1 + Math.exp(-0.05 * values.length)) - 0.5);
  let last = null;
  return values.map(value => {
    if (value === null) return null;
    last = last === null ? value : last * weight + (1 - weight) * value;
    return last;
  });
}

function traces(chart) {
  const out = [], wanted = new Set(chart.metrics), byTime = state.over === "time" && chart.over === "steps";
  const attempts = new Set(data.curves.filter(curve => wanted.has(curve.metric)).map(curve => curve.attempt)).size;
  data.curves.filter(curve => wanted.has(curve.metric)).forEach((curve, number) => {
    const clock = byTime ? clocks.get(curve.attempt) : null;
    const xs = clock ? curve.at.map(step => secondsAt(clock, step)) : curve.at;
    const tone = COLOURS[number % COLOURS.length];
    const name = escapeHtml(curve.metric) + (attempts > 1 ? ", " + wording("html_attempt", {number: curve.attempt + 1}) : "");
    const text = clock ? curve.at.map(step => wording("html_steps") + " " + step) : undefined;
    const hover = "%{y:.5g}<br>%{x}" + (clock ? " s · %{text}" : "") + `<extra>${name}</extra>`;
    const smooth = curve.metric.endsWith("loss") && !curve.metric.startsWith("eval") && curve.values.length > 12 && state.smooth !== 0;
    const few = curve.values.length < 40;
    out.push({x: xs, y: curve.values, text, name, legendgroup: name, showlegend: !smooth, mode: few && !smooth ? "lines+markers" : "lines", type: "scatter", connectgaps: false,
      line: {color: tone, width: smooth ? 1 : 1.8}, marker: {size: 4}, opacity: smooth ? 0.45 : 1, hovertemplate: hover});
    if (smooth) out.push({x: xs, y: smoothed(curve.values, state.smooth), text, name, legendgroup: name,
      mode: "lines", type: "scatter", line: {color: tone, width: 2.2}, hovertemplate: hover.replace("<extra>", `<extra>${wording("html_smoothed")}, `)});
    const marked = new Set(data.marks[curve.metric] || []);
    const affected = curve.at.map((step, place) => marked.has(step) && curve.values[place] !== null ? place : -1).filter(place => place >= 0);
    if (affected.length) out.push({x: affected.map(place => xs[place]), y: affected.map(place => curve.values[place]), name: wording("html_spikes"), legendgroup: name, showlegend: false, mode: "markers", type: "scatter",
      marker: {color: colour("--error"), size: 11, symbol: "circle-open", line: {width: 2.5}}, hovertemplate: hover});
    const broken = curve.values.map((value, place) => value === null ? place : -1).filter(place => place >= 0);
    const top = curve.values.reduce((most, value) => value !== null && value > most ? value : most, -Infinity);
    if (broken.length) out.push({x: broken.map(place => xs[place]), y: broken.map(() => Number.isFinite(top) ? top : 1), name: wording("html_broken"), legendgroup: name, showlegend: false, mode: "markers", type: "scatter",
      marker: {color: colour("--error"), size: 9, symbol: "x"}, hovertemplate: `%{x}<extra>${wording("html_broken")}</extra>`});
  });
  return out;
}

function memoryLines(chart) {
  if (chart.name !== "chart_memory") return [[], []];
  const horizontal = (y, text, tone, dash) => [
    {type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: {color: tone, width: 2, dash}},
    {xref: "paper", x: 1, y, xanchor: "right", yanchor: "bottom", showarrow: false, text, font: {size: 11, color: tone}}];
  const out = [];
  if (data.capacity) out.push(horizontal(data.capacity, wording("html_capacity", {gib: data.capacity.toFixed(1)}), colour("--error"), "dash"));
  const after = data.predicted && data.predicted.after;
  if (after !== null && after !== undefined && data.predicted) out.push(horizontal(after, wording("html_predicted", {gib: after.toFixed(1)}), colour("--fine"), "dot"));
  return [out.map(([shape]) => shape), out.map(([, label]) => label)];
}

// The steps of what the report is about, shaded; a single step is a line.
function incidentBands(chart) {
  if (chart.over !== "steps") return [];
  const clock = state.over === "time" ? clocks.get(0) : null, place = step => clock ? secondsAt(clock, step) : step;
  return data.incidents.map(([first, last]) => ({type: "rect", layer: "below", yref: "paper", x0: place(first), x1: place(last), y0: 0, y1: 1,
    fillcolor: colour("--error"), opacity: 0.12, line: {width: first === last ? 3 : 0, color: colour("--error")}}));
}

function layout(chart, curves) {
  const grid = colour("--line"), [lines, annotations] = memoryLines(chart), shapes = [...incidentBands(chart), ...lines];
  const axis = {gridcolor: grid, zerolinecolor: grid, linecolor: grid};
  const seconds = chart.over === "seconds" || (state.over === "time" && clocks.size);
  return {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: colour("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily},
    margin: {l: 48, r: 10, t: 8, b: 40}, hovermode: "x", dragmode: "zoom", shapes, annotations, uirevision: state.over + state.log,
    legend: {orientation: "h", y: 1.02, yanchor: "bottom", font: {size: 11}}, showlegend: curves.filter(curve => curve.showlegend !== false).length > 1, modebar: {bgcolor: colour("--card"), color: colour("--dim"), activecolor: colour("--accent")},
    hoverlabel: {bgcolor: colour("--card"), bordercolor: grid, font: {color: colour("--ink")}},
    xaxis: {...axis, title: {text: wording(seconds ? "html_seconds" : "html_steps"), font: {size: 11}}},
    yaxis: {...axis, automargin: "left", type: state.log ? "log" : "linear", exponentformat: "power",
      rangemode: ["chart_pace", "chart_tokens", "chart_memory"].includes(chart.name) ? "tozero" : "normal"}};
}

// Zoom all plots that share an axis syncZoom.
function syncZoom(plot, chart, event) {
  if (syncZoom.busy) return;
  const change = {};
  if (event["xaxis.range[0]"] !== undefined) change["xaxis.range"] = [event["xaxis.range[0]"], event["xaxis.range[1]"]];
  else if (event["xaxis.autorange"]) change["xaxis.autorange"] = true;
  else return;
  syncZoom.range.set(chart.over, change["xaxis.range"] || null);
  syncZoom.busy = true;
  const others = all(".canvas", page()).filter(other => other !== plot && other.data && data.charts[other.dataset.chart].over === chart.over);
  Promise.all(others.map(other => Plotly.relayout(other, change))).finally(() => { syncZoom.busy = false; });
}
syncZoom.range = new Map();

// All buttons are listed: plotly's default set may include one that uploads the chart, and this page makes no requests.
const MODEBAR = {responsive: true, displaylogo: false, modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]]};

function drawOne(plot) {
  const chart = data.charts[plot.dataset.chart], fresh = !plot.data;
  const range = fresh && syncZoom.range.get(chart.over), curves = traces(chart), options = layout(chart, curves);
  if (range) Object.assign(options.xaxis, {range: [...range], autorange: false});
  return Plotly.react(plot, curves, options, MODEBAR)
    .then(() => { if (fresh) plot.on("plotly_relayout", event => syncZoom(plot, chart, event)); plot.dataset.drawn = "yes"; });
}

function draw() {
  all("[data-over]").forEach(button => button.setAttribute("aria-pressed", String(button.dataset.over === state.over)));
  all("[data-over=time]").forEach(button => { button.disabled = !clocks.size; });
  all("button.log").forEach(button => button.setAttribute("aria-pressed", String(state.log)));
  if (state.smooth !== null) all("input.smooth").forEach(slider => { slider.value = state.smooth; });
  if (!window.Plotly) return;
  waiting = all(".canvas", page());
  drawWaiting();
}

// Visible plots are drawn at once, the others when the browser is idle, so that the page stays responsive.
let waiting = [], drawing = false;
const visible = new Set();
const watcher = new IntersectionObserver(entries => {
  entries.forEach(entry => { if (entry.isIntersecting) visible.add(entry.target); else visible.delete(entry.target); });
  drawWaiting.wake();
}, {rootMargin: "300px 0px"});
all(".canvas").forEach(plot => watcher.observe(plot));

async function drawWaiting() {
  if (drawing) { drawWaiting.wake(); return; }
  drawing = true;
  try {
    while (waiting.length) {
      if (!waiting.some(plot => visible.has(plot))) await idle();
      const next = waiting.find(plot => visible.has(plot)) || waiting[0];
      waiting = waiting.filter(plot => plot !== next);
      if (next) await drawOne(next);
      await new Promise(done => setTimeout(done));
    }
  } finally { drawing = false; }
}
drawWaiting.wake = () => {};

// Resolves when the browser is idle or a plot scrolls into view.
function idle() {
  return new Promise(done => {
    drawWaiting.wake = done;
    if (window.requestIdleCallback) requestIdleCallback(done, {timeout: 1000}); else setTimeout(done, 50);
  });
}

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place++) out[place] = raw.charCodeAt(place);
  return out;
}

async function loadPlotly() {
  const compressed = bytes(document.getElementById("plotly").textContent.trim());
  const code = await new Response(new Blob([compressed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  const script = document.createElement("script");
  script.textContent = code;
  document.head.append(script);
}

readAddress();
if (data.plots) {
  if (window.DecompressionStream) loadPlotly().then(draw); else all(".waiting").forEach(notice => { notice.hidden = false; });
}
root.dataset.ready = "yes";
})();
