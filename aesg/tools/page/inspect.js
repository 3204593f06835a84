const DATA = JSON.parse(document.getElementById("data").textContent);
const FACTS = DATA.facts, GRAPH = DATA.graph;
const TYPES = { f4: Float32Array, f8: Float64Array, u4: Uint32Array, u1: Uint8Array };
const C = {};  // the columns
for (const [name, [type, text]] of Object.entries(GRAPH.arrays)) {
  const raw = atob(text), buffer = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) buffer[i] = raw.charCodeAt(i);
  C[name] = new TYPES[type](buffer.buffer);
}
const N = C.id.length, E = C.source.length;
const KINDS = ["similarity", "succession", "abstraction"];
const EVENT_COLORS = ["#2e9e5b", "#2a6fdb", "#c9a227", "#d9541e", "#8a94a6", "#9750c9"];
const $ = id => document.getElementById(id);
const placeOf = new Map(); for (let i = 0; i < N; i++) placeOf.set(C.id[i], i);
const degree = new Float64Array(N); for (let i = 0; i < N; i++) degree[i] = C.in[i] + C.out[i];

// ---------------------------------------------------------------- colours
const regionSize = new Map(); for (const r of C.region) regionSize.set(r, (regionSize.get(r) || 0) + 1);
const regionOrder = [...regionSize.keys()].filter(r => r).sort((a, b) => regionSize.get(b) - regionSize.get(a) || a - b);
const rank = new Map(regionOrder.map((r, i) => [r, i]));
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const regionColor = r => r ? `hsl(${(rank.get(r) * 137.508 + 212) % 360} ${44 + 9 * (rank.get(r) % 3)}% ${parseFloat(css("--light")) + 5 * (rank.get(r) % 2)}%)` : css("--soft");
const STEPS = 32;
const ramp = t => `hsl(${255 - 205 * t} ${55 + 25 * t}% ${dark() ? 34 + 36 * t : 74 - 34 * t}%)`;  // pale to strong, by theme
let groups = [];  // {color, members}: drawn together
function colour() {
  const by = $("color").value, found = new Map();
  const put = (key, color, i) => { if (!found.has(key)) found.set(key, { color, members: [] }); found.get(key).members.push(i); };
  if (by === "region") {
    const colors = new Map();
    for (let i = 0; i < N; i++) { const r = C.region[i]; if (!colors.has(r)) colors.set(r, regionColor(r)); put(r, colors.get(r), i); }
  } else {
    const values = C[by], scale = by === "use" ? Math.log1p : v => v;
    let low = Infinity, high = -Infinity;
    for (const v of values) { low = Math.min(low, scale(v)); high = Math.max(high, scale(v)); }
    for (let i = 0; i < N; i++) {
      const step = high > low ? Math.round((scale(values[i]) - low) / (high - low) * STEPS) : STEPS;
      put(step, ramp(step / STEPS), i);
    }
  }
  groups = [...found.values()];
}

// ---------------------------------------------------------------- view
const canvas = $("canvas"), pen = canvas.getContext("2d");
const view = { x: 0, y: 0, scale: 1 };
let width = 1, height = 1, chosen = -1, hovered = -1, marked = null, scheduled = false;
const near = new Map();  // place of the chosen one's neighbours: kind
const fit = () => { view.scale = Math.min(width, height - 70) / 2.06; view.x = width / 2; view.y = (height - 10) / 2 + 14; };
const schedule = () => { if (!scheduled) { scheduled = true; requestAnimationFrame(() => { scheduled = false; paint(); }); } };
const crowding = Math.min(1, Math.sqrt(9000 / Math.max(1, N)));  // dots shrink so that many stay dots
const radius = i => crowding * (1.5 + 0.8 * Math.log1p(degree[i])) * Math.min(4, Math.max(0.55, Math.sqrt(view.scale / 420)));
const X = i => view.x + C.x[i] * view.scale, Y = i => view.y - C.y[i] * view.scale;
const dimmed = i => marked ? !marked.has(i) : chosen >= 0 ? i !== chosen && !near.has(i) : false;

function paint() {
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const shown = $("edges").value, ink = css("--edge"), quiet = chosen >= 0 || marked;
  if (shown !== "none") {
    const buckets = new Map();  // few strokes: edges of like opacity are drawn together
    for (let e = 0; e < E; e++) {
      if (shown !== "all" && C.kind[e] !== +shown) continue;
      const a = C.source[e], b = C.target[e], mine = a === chosen || b === chosen;
      const strong = mine ? 9 : Math.min(4, Math.floor(C.strength[e] * 5));
      if (!buckets.has(strong)) buckets.set(strong, []);
      buckets.get(strong).push(e);
    }
    const crowd = Math.min(1, 6000 / Math.max(1, E));
    for (const [strong, members] of buckets) {
      pen.beginPath();
      for (const e of members) { pen.moveTo(X(C.source[e]), Y(C.source[e])); pen.lineTo(X(C.target[e]), Y(C.target[e])); }
      const opacity = strong === 9 ? 0.85 : (0.05 + 0.35 * crowd) * (strong + 1) / 5 * (quiet ? 0.25 : 1);
      pen.strokeStyle = strong === 9 ? css("--accent") : `rgba(${ink}, ${opacity})`;
      pen.lineWidth = strong === 9 ? 1.4 : 0.7;
      pen.stroke();
    }
  }
  for (const pass of quiet ? [true, false] : [false]) {
    pen.globalAlpha = pass ? 0.16 : 1;
    for (const { color, members } of groups) {
      pen.fillStyle = color;
      pen.beginPath();
      for (const i of members) {
        if (quiet && dimmed(i) !== pass) continue;
        const x = X(i), y = Y(i), r = radius(i);
        if (x < -r || y < -r || x > width + r || y > height + r) continue;
        if (r < 1.3) pen.rect(x - r, y - r, 2 * r, 2 * r); else { pen.moveTo(x + r, y); pen.arc(x, y, r, 0, 7); }
      }
      pen.fill();
    }
  }
  pen.globalAlpha = 1;
  for (const [i, w] of [[chosen, 3], [hovered, 2]]) if (i >= 0) {
    pen.beginPath(); pen.arc(X(i), Y(i), radius(i) + w, 0, 7); pen.strokeStyle = css("--text"); pen.lineWidth = w / 1.5; pen.stroke();
  }
  labels();
}

// Names of regions where there is room: the largest first, none over another.
let middles = null;
function labels() {
  if ($("color").value !== "region") return;
  if (!middles) {
    middles = new Map();
    for (let i = 0; i < N; i++) { const m = middles.get(C.region[i]) || [0, 0, 0]; m[0] += C.x[i]; m[1] += C.y[i]; m[2]++; middles.set(C.region[i], m); }
  }
  pen.font = "600 11px system-ui, DejaVu Sans, sans-serif"; pen.textAlign = "center"; pen.lineJoin = "round";
  const taken = [];
  for (const r of regionOrder) {
    const [sx, sy, n] = middles.get(r), x = view.x + sx / n * view.scale, y = view.y - sy / n * view.scale;
    if (x < 0 || y < 0 || x > width || y > height || Math.sqrt(n / N) * view.scale < 24) continue;
    if (taken.some(([u, v]) => Math.abs(u - x) < 34 && Math.abs(v - y) < 16)) continue;
    taken.push([x, y]);
    if (taken.length > 60) break;
    pen.strokeStyle = css("--map"); pen.lineWidth = 3.5; pen.strokeText(String(r), x, y + 4);
    pen.fillStyle = css("--text"); pen.fillText(String(r), x, y + 4);
  }
}

// ---------------------------------------------------------------- picking
const grid = new Map(), CELL = 0.02;
for (let i = 0; i < N; i++) { const key = Math.floor(C.x[i] / CELL) + "," + Math.floor(C.y[i] / CELL); grid.has(key) ? grid.get(key).push(i) : grid.set(key, [i]); }
function pick(px, py) {
  const x = (px - view.x) / view.scale, y = (view.y - py) / view.scale, reach = 14 / view.scale;
  let best = -1, least = Infinity;
  const look = i => {
    const d = Math.hypot(X(i) - px, Y(i) - py) - radius(i);
    if (d < 6 && d < least) { least = d; best = i; }
  };
  const cells = Math.ceil(reach / CELL);
  if (cells > 12) { for (let i = 0; i < N; i++) look(i); return best; }
  for (let u = -cells; u <= cells; u++) for (let v = -cells; v <= cells; v++)
    (grid.get((Math.floor(x / CELL) + u) + "," + (Math.floor(y / CELL) + v)) || []).forEach(look);
  return best;
}

function choose(i, centre) {
  chosen = i; near.clear();
  if (i >= 0) {
    for (let e = 0; e < E; e++) {
      if (C.source[e] === i) near.set(C.target[e], C.kind[e]);
      if (C.target[e] === i && !near.has(C.source[e])) near.set(C.source[e], C.kind[e]);
    }
    if (centre) {
      view.scale = Math.max(view.scale, Math.min(width, height) * 1.6);
      view.x = width / 2 - C.x[i] * view.scale; view.y = height / 2 + C.y[i] * view.scale;
    }
  }
  details(); schedule();
}

function details() {
  const box = $("details"); box.replaceChildren(make("h2", {}, chosen < 0 ? "Concept" : `Concept ${C.id[chosen]}`));
  if (chosen < 0) { box.append(make("div", { class: "soft" }, N ? "Click one in the graph, or search for its id." : "The memory holds no concepts yet.")); return; }
  const i = chosen, rows = [
    ["region", C.region[i] || "none"], ["relevance", C.relevance[i].toFixed(4)], ["used", whole(C.use[i])], ["age", whole(C.age[i])],
    ["edges", `${whole(C.out[i])} out, ${whole(C.in[i])} in`], ["created", moment(C.created[i])], ["changed", moment(C.modified[i])],
  ];
  if (C.abstract[i]) rows.unshift(["kind", "abstract"]);
  box.append(make("table", {}, ...rows.map(([k, v]) => make("tr", {}, make("td", { class: "soft" }, k), make("td", {}, String(v))))));
  const table = make("table", {});
  for (let e = C.first[i]; e < C.first[i + 1]; e++) {
    const there = placeOf.get(C.nearId[e]);
    const row = make("tr", there === undefined ? {} : { class: "go" }, make("td", {}, String(C.nearId[e])),
      make("td", { class: "soft" }, KINDS[C.nearKind[e]] + (there === undefined ? ", not drawn" : "")), make("td", { class: "n" }, C.nearStrength[e].toFixed(3)));
    if (there !== undefined) row.onclick = () => choose(there, true);
    table.append(row);
  }
  if (table.childElementCount) box.append(make("h2", { style: "margin-top:10px" }, "Strongest edges out"), table);
}

// ---------------------------------------------------------------- search
function search() {
  const text = $("search").value.trim().toLowerCase();
  marked = null;
  const only = test => { marked = new Set(); for (let i = 0; i < N; i++) if (test(i)) marked.add(i); };
  const region = text.match(/^region\s*:?\s*(\d+)$/);
  if (region) only(i => C.region[i] === +region[1]);
  else if (text === "hubs" || text === "hub") { const ids = new Set(FACTS.hubs.map(h => h.id)); only(i => ids.has(C.id[i])); }
  else if (text === "unused" || text === "idle") only(i => C.use[i] === 0);
  else if (text === "abstract") only(i => C.abstract[i]);
  else if (/^\d+$/.test(text)) {
    const there = placeOf.get(+text);
    if (there !== undefined) { choose(there, true); note(); return; }
    only(() => false);
  } else if (text) only(() => false);
  note(); schedule();
}
function note() {
  const share = N === GRAPH.concepts ? `all <b>${whole(N)}</b> concepts` : `<b>${whole(N)}</b> of <b>${whole(GRAPH.concepts)}</b> concepts (${(100 * N / GRAPH.concepts).toPrecision(3)} %): the ${whole(GRAPH.hubs)} best connected and an even sample of the others`;
  const edges = E === GRAPH.edges ? `all <b>${whole(E)}</b> edges` : `<b>${whole(E)}</b> of <b>${whole(GRAPH.edges)}</b> edges`;
  $("share").innerHTML = `Drawn: ${share}; ${edges}. Figures and charts count everything.` + (marked ? ` &nbsp; <b>${whole(marked.size)} found</b> among those drawn` : "");
}

// ---------------------------------------------------------------- events
const local = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
function zoom(factor, px = width / 2, py = height / 2) {
  const scale = Math.min(4e5, Math.max(40, view.scale * factor)), k = scale / view.scale;
  view.x = px - (px - view.x) * k; view.y = py - (py - view.y) * k; view.scale = scale; schedule();
}
canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.0016), ...local(event)); }, { passive: false });
const fingers = new Map(); let moved = 0;
canvas.addEventListener("pointerdown", event => { canvas.setPointerCapture(event.pointerId); fingers.set(event.pointerId, local(event)); moved = 0; canvas.classList.add("drag"); });
canvas.addEventListener("pointermove", event => {
  const [px, py] = local(event), last = fingers.get(event.pointerId);
  if (last) {
    if (fingers.size === 2) {
      const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      zoom(Math.hypot(px - other[0], py - other[1]) / Math.max(1, Math.hypot(last[0] - other[0], last[1] - other[1])), ...other);
    } else { view.x += px - last[0]; view.y += py - last[1]; }
    moved += Math.abs(px - last[0]) + Math.abs(py - last[1]); fingers.set(event.pointerId, [px, py]); schedule(); return;
  }
  const over = pick(px, py), tip = $("tip");
  if (over !== hovered) { hovered = over; canvas.classList.toggle("over", over >= 0); schedule(); }
  tip.hidden = over < 0;
  if (over >= 0) {
    tip.textContent = `concept ${C.id[over]} · region ${C.region[over] || "none"} · used ${whole(C.use[over])} · ${whole(degree[over])} edges`;
    tip.style.left = Math.min(px + 14, width - tip.offsetWidth - 8) + "px"; tip.style.top = Math.min(py + 14, height - 34) + "px";
  }
});
const release = event => { if (fingers.delete(event.pointerId) && moved < 4 && event.type === "pointerup") choose(pick(...local(event)), false); canvas.classList.remove("drag"); };
canvas.addEventListener("pointerup", release); canvas.addEventListener("pointercancel", release);
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; hovered = -1; schedule(); });
canvas.addEventListener("dblclick", event => zoom(2.2, ...local(event)));
$("zoom").onclick = event => { const by = event.target.dataset.zoom; if (by === undefined) return; if (+by) zoom(+by); else { fit(); schedule(); } };
$("search").oninput = search;
$("color").onchange = () => { colour(); schedule(); };
$("edges").onchange = schedule;
addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== $("search")) { event.preventDefault(); $("search").focus(); }
  else if (event.key === "Escape") { $("search").value = ""; marked = null; choose(-1, false); note(); }
  else if (document.activeElement === canvas) {
    const step = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (step) { event.preventDefault(); view.x += step[0]; view.y += step[1]; schedule(); }
    if (event.key === "+") zoom(1.5); if (event.key === "-") zoom(1 / 1.5);
  }
});
const dark = () => document.documentElement.dataset.theme === "dark";
function theme(name) { document.documentElement.dataset.theme = name; colour(); regionsTable(); schedule(); }
$("theme").onclick = () => theme(dark() ? "light" : "dark");

// ---------------------------------------------------------------- the rest of the page
function regionsTable() {
  const box = $("regions");
  const { count, none, largest } = FACTS.regions;
  box.replaceChildren(make("div", { class: "soft" }, count ? `${whole(count)} regions` + (none ? `; ${whole(none)} of the concepts in none` : "") : "none found yet"));
  const top = largest.length ? largest[0][1] : 1;
  box.append(make("table", {}, ...largest.map(([region, size]) => {
    const bar = make("i", { style: `width:${100 * size / top}%;background:${rank.has(region) ? regionColor(region) : css("--soft")}` });
    const row = make("tr", { class: "go" }, make("td", {}, String(region)), make("td", { style: "width:60%;vertical-align:middle" }, make("div", { class: "bar" }, bar)), make("td", { class: "n" }, whole(size)));
    row.onclick = () => { $("search").value = `region:${region}`; search(); };
    return row;
  })));
}
function page() {
  const c = FACTS.concepts, name = FACTS.directory.split("/").filter(Boolean).pop() || "/";
  $("title").textContent = name; $("path").textContent = FACTS.directory; document.title = `${name}: aesg memory`;
  const total = Object.values(FACTS.disk).reduce((sum, file) => sum + file.bytes, 0);
  for (const [value, label] of [[whole(c.living), "concepts"], [whole(FACTS.edges.all), "edges"], [whole(FACTS.regions.count), "regions"],
    [whole(c.never_used), "never used"], [whole(c.dead), "dead slots"], [FACTS.vector_dim, "dimensions"], [FACTS.mode, "mode"], [FACTS.generation, "commits"], [bytes(total), "on disk"]])
    $("chips").append(make("div", { class: "chip" }, make("b", {}, String(value)), make("span", {}, label)));
  $("hubs").append(FACTS.hubs.length ? make("table", {}, ...FACTS.hubs.map(hub => {
    const there = placeOf.get(hub.id), row = make("tr", there === undefined ? {} : { class: "go" }, make("td", {}, String(hub.id)),
      make("td", { class: "soft" }, `region ${hub.region_id || "none"}`), make("td", { class: "n" }, `${whole(hub.degree)} edges`));
    if (there !== undefined) row.onclick = () => choose(there, true);
    return row;
  })) : make("div", { class: "soft" }, "no concept has an edge"));
  const h = FACTS.health;
  $("health").append(h === null ? make("div", { class: "soft" }, "not checked") : h.length ? make("div", { class: "bad" }, ...h.slice(0, 20).map(f => make("div", {}, f)))
    : make("div", { class: "good" }, "sound: files and graph were checked"));
  $("disk").append(make("table", {}, ...Object.entries(FACTS.disk).map(([file, use]) => make("tr", {}, make("td", {}, file), make("td", { class: "n" }, bytes(use.bytes))))));
  for (const id of ["relevance", "age", "use", "degree"]) $(id).append(histogram(FACTS.histograms[id], id === "use" || id === "degree"));
  const show = axis => { $("evolution").replaceChildren(evolutionChart(DATA.evolution, axis, EVENT_COLORS)); for (const b of $("axis").children) b.classList.toggle("on", b.dataset.axis === axis); };
  $("axis").onclick = event => event.target.dataset.axis && show(event.target.dataset.axis);
  show("event");
  $("last").append(FACTS.events.last.length ? make("table", {}, ...FACTS.events.last.slice().reverse().map(e => make("tr", {}, make("td", { class: "soft" }, moment(e.timestamp)),
    make("td", {}, String(e.type)), make("td", { class: "n" }, whole(e.id1)), make("td", { class: "n" }, whole(e.id2)), make("td", { class: "n" }, short(e.val))))) : make("div", { class: "soft" }, "none"));
}
function resize() {  // painted at once: setting a canvas's size wipes it
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  if (w === width && h === height && canvas.width === Math.round(w * ratio)) return;
  const first = width === 1;
  if (!first) { view.x += (w - width) / 2; view.y += (h - height) / 2; }
  width = w; height = h;
  canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
  if (first) fit();
  paint();
}
new ResizeObserver(resize).observe(canvas);
const wanted = new URLSearchParams(location.hash.slice(1));  // #theme=dark&search=region:7
document.documentElement.dataset.theme = wanted.get("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
page(); resize(); theme(document.documentElement.dataset.theme); details(); note();
if (wanted.get("search")) { $("search").value = wanted.get("search"); search(); }
