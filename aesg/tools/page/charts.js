// Small charts as SVG, and the elements they are made of.
const SVG = "http://www.w3.org/2000/svg";
const make = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) key === "class" ? element.className = value : element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const draw = (name, attributes, text) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
const whole = n => Math.round(n).toLocaleString("en-US");
const short = n => Math.abs(n) >= 1e6 ? (n / 1e6).toPrecision(3) + "M" : Math.abs(n) >= 1e4 ? Math.round(n / 1e3) + "k"
  : Number.isInteger(n) ? String(n) : n.toPrecision(3);
const bytes = n => n >= 1e9 ? (n / 1e9).toPrecision(3) + " GB" : n >= 1e6 ? (n / 1e6).toPrecision(3) + " MB"
  : n >= 1e3 ? (n / 1e3).toPrecision(3) + " kB" : n + " B";
const moment = s => { const d = new Date(s * 1000); return isNaN(d) ? String(s) : d.toISOString().slice(0, 19).replace("T", " ") + " UTC"; };
const span = s => s >= 172800 ? (s / 86400).toPrecision(3) + " d" : s >= 7200 ? (s / 3600).toPrecision(3) + " h"
  : s >= 120 ? (s / 60).toPrecision(3) + " min" : short(s) + " s";

// A histogram: bars over their range; logarithmic ones were counted over log10(1 + value).
function histogram(counted, logarithmic) {
  if (counted.mean === null) return make("div", { class: "soft" }, "no concepts");
  const W = 280, H = 120, B = 18, top = Math.max(1, ...counted.counts), step = W / counted.counts.length;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  const value = v => logarithmic ? Math.round(10 ** v - 1) : v;
  const at = i => value(counted.low + (counted.high - counted.low) * i / counted.counts.length);
  counted.counts.forEach((count, i) => {
    const h = count ? Math.max(2, (H - B - 8) * count / top) : 0;
    const bar = draw("rect", { x: i * step + 1, y: H - B - h, width: step - 2, height: h, rx: 1.5, fill: "var(--accent)" });
    bar.append(draw("title", {}, `${short(at(i))} to ${short(at(i + 1))}: ${whole(count)} concepts`));
    svg.append(bar);
  });
  svg.append(draw("line", { x1: 0, x2: W, y1: H - B, y2: H - B, class: "grid" }),
    draw("text", { x: 0, y: H - 4 }, short(at(0))),
    draw("text", { x: W / 2, y: H - 4, "text-anchor": "middle" }, logarithmic ? "logarithmic" : `mean ${short(counted.mean)}`),
    draw("text", { x: W, y: H - 4, "text-anchor": "end" }, short(at(counted.counts.length))));
  return svg;
}

// Events as stacked bars, the number of living concepts as a line with its own scale on the right.
function evolutionChart(evolution, axis, colors) {
  const data = evolution.by[axis];
  if (!data) return make("div", { class: "soft" }, "nothing has happened yet");
  const W = 1180, H = 230, L = 52, R = 56, T = 10, B = 24, bins = data.living.length;
  const totals = data.living.map((_, i) => data.counts.reduce((sum, row) => sum + row[i], 0));
  const top = Math.max(1, ...totals), most = Math.max(1, ...data.living), step = (W - L - R) / bins;
  const up = (v, max) => H - B - (H - T - B) * v / max;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "events and living concepts" });
  for (let i = 0; i <= 4; i++) {
    const y = up(i, 4);
    svg.append(draw("line", { x1: L, x2: W - R, y1: y, y2: y, class: "grid" }),
      draw("text", { x: L - 6, y: y + 4, "text-anchor": "end" }, short(top * i / 4)),
      draw("text", { x: W - R + 6, y: y + 4 }, short(most * i / 4)));
  }
  for (let i = 0; i < bins; i++) {
    let base = 0;
    data.counts.forEach((row, kind) => {
      if (!row[i]) return;
      const bar = draw("rect", { x: L + i * step + 0.5, width: Math.max(1, step - 1), y: up(base + row[i], top),
        height: Math.max(1, up(base, top) - up(base + row[i], top)), fill: colors[kind] });
      bar.append(draw("title", {}, `${whole(row[i])} ${evolution.kinds[kind]}; ${whole(data.living[i])} living`));
      svg.append(bar);
      base += row[i];
    });
  }
  const line = data.living.map((v, i) => `${i ? "L" : "M"}${(L + (i + 0.5) * step).toFixed(1)} ${up(v, most).toFixed(1)}`).join(" ");
  svg.append(draw("path", { d: line, class: "living" }));
  const from = axis === "event" ? "first event" : moment(evolution.began);
  const to = axis === "event" ? `event ${whole(data.span)}` : `${moment(evolution.ended)}  (${span(data.span)})`;
  svg.append(draw("text", { x: L, y: H - 6 }, from), draw("text", { x: W - R, y: H - 6, "text-anchor": "end" }, to));
  const legend = make("div", { class: "legend" });
  evolution.kinds.forEach((name, kind) => {
    const count = data.counts[kind].reduce((a, b) => a + b, 0);
    if (count) legend.append(make("span", {}, make("i", { class: "dot", style: `background:${colors[kind]}` }), `${name} ${whole(count)}`));
  });
  legend.append(make("span", {}, "— living concepts (right scale)"));
  return make("div", {}, svg, legend);
}
