--- The status page: one HTML document that asks for nothing but its own JSON.  All that it shows is set as text, never as markup.
return [==[<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>fpcache</title>
<link rel="icon" href="data:,">
<style>
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #16202c; --soft: #596575; --line: #dfe3e8;
  --a: #1f6feb; --b: #b35900; --c: #1a7f52; --d: #8250df; --bad: #b42318; --good: #1a7f52;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f141a; --card: #182028; --ink: #e4e9ef; --soft: #9aa6b4; --line: #2c3742;
    --a: #6ea8fe; --b: #f0a35a; --c: #57c994; --d: #b99bff; --bad: #ff8579; --good: #57c994;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1.25rem; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 76rem; margin: 0 auto; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin-bottom: 1rem; }
h1 { font-size: 1.35rem; margin: 0; }
h2 { font-size: .95rem; font-weight: 600; margin: 0 0 .1rem; }
.soft { color: var(--soft); font-size: .85rem; }
.bad { color: var(--bad); } .good { color: var(--good); }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin-bottom: .75rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); gap: .75rem;
  margin-bottom: .75rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .75rem .9rem; min-width: 0; }
.value { font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 500; }
tr:last-child td { border-bottom: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; font-size: .82rem; color: var(--soft); min-height: 1.3em; }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.dot { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%; margin-right: .35rem; }
</style>
</head>
<body>
<main>
<header><h1>fpcache</h1><span class="soft" id="about">loading</span><span id="state" role="status"></span></header>
<section class="numbers" id="numbers" aria-label="Now"></section>
<section class="charts" id="charts" aria-label="Over time"></section>
<section class="card scroll"><h2>Workers</h2><table id="workers"></table></section>
</main>
<script>
"use strict";
const byId = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes, text) {
  const isDrawing = ["svg", "path", "line", "text", "circle", "rect"].includes(name);
  const element = isDrawing ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// --- numbers as people read them ---
const isKnown = v => typeof v === "number" && isFinite(v);
const short = v => {
  if (!isKnown(v)) return "–";
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e4, " k"]])
    if (Math.abs(v) >= size) return (v / (unit === " k" ? 1e3 : size)).toPrecision(3) + unit;
  return Number.isInteger(v) ? String(v) : v.toPrecision(3);
};
const bytes = v => {
  if (!isKnown(v)) return "–";
  for (const [size, unit] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]])
    if (v >= size) return (v / size).toPrecision(3) + " " + unit;
  return v + " B";
};
const time = v => !isKnown(v) ? "–" : v === 0 ? "0" : v >= 1 ? v.toPrecision(3) + " s"
  : v >= 1e-3 ? (v * 1e3).toPrecision(3) + " ms" : (v * 1e6).toPrecision(3) + " µs";
const percent = v => isKnown(v) ? (v * 100).toFixed(1) + " %" : "–";
const span = v => v >= 172800 ? Math.floor(v / 86400) + " d" : v >= 7200 ? Math.floor(v / 3600) + " h"
  : v >= 120 ? Math.floor(v / 60) + " min" : Math.floor(v) + " s";

// --- what the samples say ---
const OUTCOMES = ["HIT", "MISS", "STALE", "EXPIRED", "REVALIDATED", "BYPASS"];
const SERVED = ["HIT", "STALE", "REVALIDATED"];
const more = (now, before) => Math.max(0, (now || 0) - (before || 0));
const ratio = (a, b) => b > 0 ? a / b : undefined;

function quantile(now, before, q, ends) {
  if (!now) return undefined;
  const deltas = now.counts.map((c, i) => more(c, before ? before.counts[i] : 0));
  const all = deltas.reduce((a, b) => a + b, 0);
  if (!all) return undefined;
  let sum = 0;
  for (let i = 0; i < deltas.length; i++) {
    if (sum + deltas[i] >= q * all) {
      const low = i ? ends[i - 1] : 0, high = i < ends.length ? ends[i] : ends[ends.length - 1] * 2;
      return low + (high - low) * (q * all - sum) / deltas[i];
    }
    sum += deltas[i];
  }
}

function between(now, before, ends) {
  const seconds = now.time - before.time;
  const outcome = name => more((now.outcomes || {})[name], (before.outcomes || {})[name]);
  const requests = OUTCOMES.reduce((all, name) => all + outcome(name), 0);
  const hits = more(now.hits, before.hits), misses = more(now.misses, before.misses);
  return {
    time: now.time, rate: requests / seconds, lookups: (hits + misses) / seconds,
    keys: ratio(hits, hits + misses), near: ratio(more(now.near_hits, before.near_hits), hits + misses),
    pages: ratio(SERVED.reduce((all, name) => all + outcome(name), 0), requests),
    p50: quantile(now.latency, before.latency, .5, ends), p95: quantile(now.latency, before.latency, .95, ends),
    upstream: quantile(now.upstream, before.upstream, .95, ends), trip: now.round_trip,
    bytes: now.bytes, near_bytes: now.near_bytes, rows: now.rows, workers: now.workers,
  };
}

// --- charts ---
const WIDTH = 460, HEIGHT = 170, LEFT = 58, RIGHT = 10, TOP = 10, BOTTOM = 22;

function niceTop(top) {
  if (!(top > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 2.5, 5, 10].map(n => n * power).find(n => n >= top * 0.999);
}

function chart(title, hint, points, series, format, fixedTop) {
  const card = make("div", { class: "card" });
  card.append(make("h2", {}, title), make("div", { class: "soft" }, hint));
  const drawn = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title });
  const values = series.flatMap(one => points.map(p => p[one.field]).filter(isKnown));
  const top = fixedTop || niceTop(Math.max(0, ...values));
  const first = points.length ? points[0].time : 0, last = points.length ? points[points.length - 1].time : 1;
  const x = t => LEFT + (WIDTH - LEFT - RIGHT) * (last > first ? (t - first) / (last - first) : 1);
  const y = v => TOP + (HEIGHT - TOP - BOTTOM) * (1 - v / top);
  for (const part of [0, .5, 1]) {
    drawn.append(make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(top * part), y2: y(top * part), stroke: "var(--line)" }),
      make("text", { x: LEFT - 6, y: y(top * part) + 4, "text-anchor": "end" }, format(top * part)));
  }
  drawn.append(make("text", { x: LEFT, y: HEIGHT - 6 }, points.length > 1 ? span(last - first) + " ago" : ""),
    make("text", { x: WIDTH - RIGHT, y: HEIGHT - 6, "text-anchor": "end" }, "now"));
  for (const one of series) {
    let path = "", isOpen = false;
    for (const p of points) {
      const v = p[one.field];
      const at = isKnown(v) && `${x(p.time).toFixed(1)} ${y(Math.min(v, top)).toFixed(1)}`;
      if (at) path += isOpen ? "L" + at : "M" + at + "h0"; // one alone is a dot
      isOpen = isKnown(v);
    }
    drawn.append(make("path", { d: path, fill: "none", stroke: `var(--${one.color})`, "stroke-width": 1.8,
      "stroke-linejoin": "round", "stroke-linecap": "round" }));
  }
  const legend = make("div", { class: "legend" });
  const cursor = make("line", { y1: TOP, y2: HEIGHT - BOTTOM, stroke: "var(--soft)", "stroke-dasharray": "3 3", opacity: 0 });
  drawn.append(cursor);
  const tell = p => {
    legend.replaceChildren(...series.map(one => {
      const item = make("span");
      item.append(make("span", { class: "dot", style: `background: var(--${one.color})` }), one.name + " ",
        make("b", {}, format(p ? p[one.field] : undefined)));
      return item;
    }));
  };
  const latest = points[points.length - 1];
  tell(latest);
  drawn.addEventListener("pointermove", event => {
    const box = drawn.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * WIDTH;
    const near = points.reduce((best, p) => !best || Math.abs(x(p.time) - at) < Math.abs(x(best.time) - at) ? p : best, null);
    if (!near) return;
    cursor.setAttribute("x1", x(near.time)); cursor.setAttribute("x2", x(near.time)); cursor.setAttribute("opacity", 1);
    tell(near);
  });
  drawn.addEventListener("pointerleave", () => { cursor.setAttribute("opacity", 0); tell(latest); });
  card.append(drawn, legend);
  return card;
}

// --- the page ---
function number(title, value, hint) {
  const card = make("div", { class: "card" });
  const line = (name, text) => make("div", { class: name }, text);
  card.append(line("soft", title), line("value", value), line("soft", hint));
  return card;
}

function row(kind, cells) {
  const line = make("tr");
  for (const cell of cells) line.append(cell instanceof Node ? cell : make(kind, {}, cell));
  return line;
}

function showWorkers(data) {
  const lines = [row("th", ["worker", "process", "up for", "lookups", "hit ratio", "near cache", "feed", "connections",
    "in flight", "answered", "server"])];
  for (const w of data.workers) {
    const caches = Object.values(w.caches || {}), sum = pick => caches.reduce((all, c) => all + (pick(c) || 0), 0);
    const hits = sum(c => c.hits), lookups = hits + sum(c => c.misses);
    const answered = Object.values(w.responses || {}).reduce((all, r) => all + OUTCOMES.reduce((n, o) => n + r.counts[o], 0), 0);
    const trouble = caches.filter(c => c.server_error), server = make("td", { class: trouble.length ? "bad" : "good" },
      trouble.length ? "no answer" : "answers");
    if (trouble.length) server.setAttribute("title", trouble[0].server_error);
    lines.push(row("td", [w.worker, w.pid, span(w.time - w.since), short(lookups), percent(ratio(hits, lookups)),
      bytes(sum(c => c.near && c.near.bytes)), caches.map(c => c.feed ? c.feed.state : "–").join(", ") || "–",
      short(sum(c => c.pool && c.pool.idle + c.pool.lent + c.pipeline.open)), short((w.engine || {}).in_flight),
      short(answered), server]));
  }
  byId("workers").replaceChildren(...lines);
}

function show(data) {
  const ends = data.buckets, samples = data.history, points = [];
  for (let i = 1; i < samples.length; i++) points.push(between(samples[i], samples[i - 1], ends));
  const total = data.total, outcomes = total.outcomes || {};
  const answered = OUTCOMES.reduce((all, name) => all + (outcomes[name] || 0), 0);
  const lookups = total.hits + total.misses;
  byId("about").textContent = `${data.version} · ` + (data.scope === "all" ? `${data.workers.length} workers`
    : "this worker only (no lua_shared_dict)");
  byId("numbers").replaceChildren(
    number("Lookups that hit", percent(ratio(total.hits, lookups)), short(lookups) + " lookups"),
    number("Served from cache", percent(ratio(SERVED.reduce((a, n) => a + (outcomes[n] || 0), 0), answered)),
      short(answered) + " requests"),
    number("Answer time, p95", time(quantile(total.latency, null, .95, ends)), "half within "
      + time(quantile(total.latency, null, .5, ends))),
    number("Table", bytes(total.bytes), short(total.rows) + " rows, estimated"),
    number("Near caches", bytes(total.near_bytes), short(total.near_entries) + " entries"),
    number("Server", time(total.round_trip), "for one statement"));
  byId("charts").replaceChildren(
    chart("Hit ratio", "of lookups, and of answered requests", points, [{ name: "lookups", field: "keys", color: "a" },
      { name: "of these near", field: "near", color: "d" }, { name: "requests", field: "pages", color: "c" }], percent, 1),
    chart("Latency", "of answers, of the origin, of one statement", points, [{ name: "p50", field: "p50", color: "a" },
      { name: "p95", field: "p95", color: "d" }, { name: "origin p95", field: "upstream", color: "b" },
      { name: "statement", field: "trip", color: "c" }], time),
    chart("Load", "per second", points, [{ name: "lookups", field: "lookups", color: "a" },
      { name: "requests", field: "rate", color: "c" }], short),
    chart("Size", "of the table with its indexes, and of all near caches", points, [{ name: "table", field: "bytes", color: "a" },
      { name: "near caches", field: "near_bytes", color: "d" }], bytes));
  showWorkers(data);
  byId("state").textContent = "";
}

async function refresh() {
  let pause = 2;
  try {
    const answer = await fetch("?format=json", { cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    const data = await answer.json();
    pause = Math.max(1, data.interval);
    if (data.scope !== "all") { // no samples are kept there: take our own
      own.push(Object.assign({ time: data.time }, data.total));
      if (own.length > 300) own.shift();
      data.history = own;
    }
    show(data);
  } catch (error) {
    byId("state").textContent = "no answer: " + error.message;
    byId("state").className = "bad";
  }
  setTimeout(refresh, pause * 1000);
}
const own = [];
refresh();
</script>
</body>
</html>
]==]
