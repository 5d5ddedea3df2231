"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const result = data.result, configurations = result.configurations;
const at = id => document.getElementById(id);
const baseline = Math.max(0, configurations.findIndex(found => found.name === result.baseline));

// Building elements: text is only ever set as text.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  return fill(made, attributes, children);
}
function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  return fill(made, attributes, children);
}
function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}
const replace = (id, ...children) => at(id).replaceChildren(...children);

// Numbers: three significant digits, in µs.
function digits(value) {
  const size = Math.abs(value);
  return size >= 1000 ? value.toFixed(0) : size >= 100 ? value.toFixed(1) : value.toFixed(2);
}
const micros = ns => digits(ns / 1000);
const signed = ns => (ns < 0 ? "−" : "+") + digits(Math.abs(ns) / 1000);
const spread = interval => interval ? ` [${digits(interval[0] / 1000)}, ${digits(interval[1] / 1000)}]`.replaceAll("-", "−") : "";
const percent = share => (100 * share).toFixed(share !== 0 && Math.abs(share) < 0.1 ? 2 : 1).replace(/^-(0\.0+)$/, "$1").replace("-", "−") + " %";

// A colour for each stage, the same in every bar: the ways of the path in the order of a wheel.
const order = [];
for (const configuration of configurations) for (const stage of configuration.stages) if (!order.includes(stage.id)) order.push(stage.id);
const colour = id => {
  const index = order.indexOf(id);
  return index < 0 ? "#999" : `hsl(${(index * 137.5) % 360} ${55 + 12 * (index % 2)}% ${52 + 9 * (index % 3)}%)`;
};
const lines = ["#3b75af", "#e1812c", "#3a923a", "#c03d3e", "#9372b2", "#845b53", "#d684bd", "#7f7f7f", "#a9aa35", "#2eabb8"];

let which = "mean", corrected = false, chosen = null;

// Stages of a configuration as chosen: id, label, ns, and what else is known.
function stagesOf(index) {
  const configuration = configurations[index];
  if (which === "mean") return configuration.stages.map(stage => ({
    ...stage, ns: corrected ? stage.corrected_ns_per_op : stage.ns_per_op, interval: stage.ci95_ns }));
  const list = which === "tail" ? configuration.tail_stages : data.details[index].typical;
  return list.map(stage => ({ ...stage, ns: stage.ns_per_op, interval: null }));
}

function bars() {
  const all = configurations.map((_, index) => stagesOf(index));
  const sum = stages => stages.reduce((total, stage) => total + Math.max(0, stage.ns), 0);
  const longest = Math.max(1, ...all.map(sum));
  const left = 8, width = 1180, row = 46;
  const svg = drawn("svg", { viewBox: `0 0 1200 ${all.length * row + 26}`, role: "img", "aria-label": "stages of each configuration, stacked" });
  all.forEach((stages, index) => {
    const top = index * row + 18, total = sum(stages);
    svg.append(drawn("text", { x: left, y: top - 4 }, `${configurations[index].name}: ${stages.length ? micros(total) + " µs" : "too few records"}`));
    let x = left;
    for (const stage of stages) {
      const wide = Math.max(0, stage.ns) / longest * width;
      if (wide > 0) svg.append(drawn("rect", { class: "segment" + (chosen === stage.id ? " chosen" : ""), x, y: top, width: wide, height: row - 24, fill: colour(stage.id), onclick: () => choose(stage.id) },
        drawn("title", {}, `${stage.label || stage.id}\n${stage.id}\n${micros(stage.ns)}${spread(stage.interval)} µs, ${percent(stage.ns / total)}`)));
      x += wide;
    }
  });
  const step = niceStep(longest / 1000, 8);
  for (let value = 0; value * 1000 <= longest; value += step) {
    const x = left + value * 1000 / longest * width;
    svg.append(drawn("line", { class: "axis", x1: x, x2: x, y1: 14, y2: all.length * row + 8 }), drawn("text", { class: "soft", x: x + 2, y: all.length * row + 20 }, `${+value.toPrecision(6)} µs`));
  }
  replace("bars", svg);
  const notes = { mean: "Means over all operations of traced phases, with 95 % intervals over the rounds. A click shows what is in a stage.",
    median: "Means over the tenth of the recorded operations around the median latency. Single operations have no intervals.",
    tail: "Means over the slowest hundredth of the recorded operations." };
  replace("which-note", notes[which]);
}

function niceStep(span, wanted) {
  const raw = span / wanted, power = 10 ** Math.floor(Math.log10(raw || 1));
  return [1, 2, 5, 10].map(factor => factor * power).find(step => step >= raw) || power;
}

// A table whose columns sort: cells are [value to sort by, what is shown].
function table(heads, rows, options = {}) {
  const body = element("tbody", {});
  let by = -1, up = false;
  const show = () => {
    const sorted = rows.slice();
    if (by >= 0) sorted.sort((a, b) => {
      const [x, y] = [a.cells[by][0], b.cells[by][0]];
      const compared = typeof x === "string" ? x.localeCompare(y) : (x ?? -Infinity) - (y ?? -Infinity);
      return up ? compared : -compared;
    });
    body.replaceChildren(...sorted.map(row => element("tr", { class: row.chosen ? "chosen" : null }, row.cells.map(([, shown], column) => element("td", { class: heads[column].words ? "words" : null }, shown)))));
  };
  const cells = heads.map((head, column) => {
    const cell = element("th", { scope: "col", class: head.words ? "words" : null }, element("button", { type: "button", onclick: () => {
      [by, up] = by === column ? [column, !up] : [column, typeof rows[0]?.cells[column][0] === "string"];
      for (const other of cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      show();
    } }, head.text));
    return cell;
  });
  show();
  return element("div", { class: "wide" }, element("table", { "aria-label": options.label }, element("thead", {}, element("tr", {}, cells)), body));
}

function stages() {
  const all = configurations.map((_, index) => new Map(stagesOf(index).map(stage => [stage.id, stage])));
  const others = configurations.map((_, index) => index).filter(index => index !== baseline);
  const heads = [{ text: "stage", words: true }, ...configurations.map(found => ({ text: found.name + ", µs" })), ...others.map(index => ({ text: `${configurations[index].name} less ${configurations[baseline].name}` }))];
  const ids = order.concat([...new Set(all.flatMap(map => [...map.keys()]))].filter(id => !order.includes(id))).filter(id => all.some(map => map.has(id)));
  const rows = ids.map((id, place) => {
    const known = all.find(map => map.has(id)).get(id);
    const name = element("span", {}, element("span", { class: "swatch", style: `background:${colour(id)}` }), element("button", { type: "button", class: "stage", onclick: () => choose(id) }, id), known.label ? element("div", { class: "hint" }, known.label) : null);
    const cells = all.map(map => {
      const stage = map.get(id);
      return stage ? [stage.ns, [micros(stage.ns), element("span", { class: "spread" }, spread(stage.interval))]] : [null, "–"];
    });
    const deltas = others.map(index => {
      const of = side => all[side].get(id)?.ns ?? 0;
      const difference = of(index) - of(baseline);
      const compared = which === "mean" && !corrected ? comparison(baseline, index)?.stages.find(found => found.id === id) : null;
      return [difference, [signed(difference), element("span", { class: "spread" }, spread(compared?.ci95_ns) + (compared?.significant ? " *" : "")), compared?.detectable_ns ? element("div", { class: "spread" }, `found from ${micros(compared.detectable_ns)}`) : null]];
    });
    return { chosen: chosen === id, cells: [[String(place).padStart(4, "0"), name], ...cells, ...deltas] };
  });
  replace("stages", table(heads, rows, { label: "stages" }), element("p", { class: "hint" }, "* differs from 0, all rows considered at once. Found from: the smallest change that as many rounds find four times in five. Headings sort."));
}

const comparison = (from, to) => result.comparisons.find(found => found.baseline === configurations[from].name && found.candidate === configurations[to].name);

function choose(id) {
  chosen = chosen === id ? null : id;
  bars();
  stages();
  detail();
}

function detail() {
  if (!chosen) return replace("stage-detail");
  const parts = configurations.map((configuration, index) => {
    const position = configuration.stages.findIndex(stage => stage.id === chosen);
    if (position < 0) return null;
    const stage = configuration.stages[position];
    const layers = stage.layers.map(layer => element("tr", {}, element("td", {}, swatch(layer.layer), layer.layer), element("td", {}, percent(layer.share) + (layer.ci95 ? ` ± ${(50 * (layer.ci95[1] - layer.ci95[0])).toFixed(0)}` : "")), element("td", {}, `${layer.samples} samples`)));
    const steps = stage.parts.map(part => element("tr", {}, element("td", {}, `${place(part.from)} → ${place(part.to)}`), element("td", {}, micros(part.ns_per_op) + " µs"), element("td", {}, part.count_per_op.toFixed(2) + " / op"), element("td", { class: "words" }, part.label ?? "")));
    return element("div", {}, element("h3", {}, configuration.name),
      element("p", {}, `${micros(stage.ns_per_op)}${spread(stage.ci95_ns)} µs per operation, ${stage.count_per_op.toFixed(3)} times${stage.p50_ns === null || stage.p99_ns === null ? "" : `; median ${micros(stage.p50_ns)}, 99 % below ${micros(stage.p99_ns)} µs`}`),
      steps.length ? element("table", {}, element("caption", {}, "parts, in detailed phases"), steps) : null,
      layers.length ? element("table", {}, element("caption", {}, "layers, of its time in sampled phases"), layers) : element("p", { class: "hint" }, "no sample lies in it"),
      curves([{ name: configuration.name, colour: lines[index % lines.length], points: data.details[index].stages[position] }], 200, "durations of this stage", 600));
  });
  replace("stage-detail", element("div", { class: "panel" }, element("h3", {}, chosen), element("div", { class: "grid" }, parts)));
}

const place = found => found.device ? `${found.point}(${found.device})` : found.point;
const swatch = layer => element("span", { class: "swatch", style: `background:${data.colours[layer] || "#bab0ac"}` });

// Shares of counts over a logarithmic axis of ns.
function curves(series, height, label, span = 1200) {
  const filled = series.filter(one => one.points.length);
  if (!filled.length) return element("p", { class: "hint" }, "no durations were kept");
  const low = Math.log10(Math.max(1, Math.min(...filled.map(one => one.points[0][0]))));
  const high = Math.max(low + 0.1, Math.log10(Math.max(...filled.map(one => one.points[one.points.length - 1][0] || 1))));
  const left = 10, width = span - 20, base = height - 22, x = ns => left + (Math.log10(Math.max(1, ns)) - low) / (high - low) * width;
  const shares = filled.map(one => {
    const total = one.points.reduce((sum, point) => sum + point[1], 0) || 1;
    return { ...one, points: one.points.map(([ns, count]) => [ns, count / total]) };
  });
  const most = Math.max(...shares.flatMap(one => one.points.map(point => point[1])));
  const svg = drawn("svg", { viewBox: `0 0 ${span} ${height}`, role: "img", "aria-label": label });
  for (let power = Math.floor(low); power <= high; power++) for (const factor of high - low > 2 && span < 1000 ? [1] : [1, 2, 5]) {
    const ns = factor * 10 ** power, px = x(ns);
    if (px < left || px > left + width) continue;
    svg.append(drawn("line", { class: "axis", x1: px, x2: px, y1: 6, y2: base }), drawn("text", { class: "soft", x: px + 2, y: height - 8 }, ns >= 1e6 ? `${ns / 1e6} ms` : `${ns / 1000} µs`));
  }
  shares.forEach((one, index) => {
    const path = one.points.map(([ns, share], place) => `${place ? "L" : "M"}${x(ns).toFixed(1)} ${(base - share / most * (base - 30)).toFixed(1)}`).join("");
    svg.append(drawn("path", { d: path, fill: "none", stroke: one.colour, "stroke-width": 2 }, drawn("title", {}, one.name)), drawn("rect", { x: left + 4, y: 8 + 16 * index, width: 10, height: 10, fill: one.colour }), drawn("text", { x: left + 20, y: 17 + 16 * index }, one.name));
  });
  return svg;
}

// Half the middle distance from the median (MAD), scaled to a normal's σ (1.4826): beyond 3.5 of them, a round is an outlier (Iglewicz and Hoaglin).
function outliers(values) {
  const middle = list => { const sorted = list.slice().sort((a, b) => a - b); return sorted.length % 2 ? sorted[(sorted.length - 1) / 2] : (sorted[sorted.length / 2 - 1] + sorted[sorted.length / 2]) / 2; };
  if (values.length < 4) return values.map(() => false);
  const center = middle(values), scale = 1.4826 * middle(values.map(value => Math.abs(value - center)));
  return values.map(value => scale > 0 && Math.abs(value - center) > 3.5 * scale);
}

function scatter() {
  const series = data.details.map(detail => detail.rounds);
  const values = series.flat().map(round => round.detached_ns);
  const most = Math.max(1, ...values), rounds = Math.max(1, ...series.flat().map(round => round.round + 1));
  const left = 60, width = 1120, height = 250 + 16 * series.length, above = 14 + 16 * series.length, base = height - 26, svg = drawn("svg", { viewBox: `0 0 1200 ${height}`, role: "img", "aria-label": "mean latency of each round" });
  const step = niceStep(most / 1000, 5);
  for (let value = 0; value * 1000 <= most * 1.02; value += step) {
    const y = base - value * 1000 / (most * 1.05) * (base - above);
    svg.append(drawn("line", { class: "axis", x1: left, x2: left + width, y1: y, y2: y }), drawn("text", { class: "soft", x: 4, y: y + 4 }, `${+value.toPrecision(6)} µs`));
  }
  series.forEach((list, index) => {
    const out = outliers(list.map(round => round.detached_ns));
    list.forEach((round, place) => svg.append(drawn("circle", { cx: left + (round.round + 0.5) / rounds * width + (index - series.length / 2) * 3, cy: base - round.detached_ns / (most * 1.05) * (base - above), r: out[place] ? 7 : 4, fill: out[place] ? "none" : lines[index % lines.length], stroke: lines[index % lines.length], "stroke-width": 2 },
      drawn("title", {}, `${configurations[index].name}, round ${round.round + 1}: ${micros(round.detached_ns)} µs, with probes ${micros(round.traced_ns)} µs${out[place] ? " (an outlier)" : ""}`))));
    svg.append(drawn("rect", { x: left + 8 + 0, y: 8 + 16 * index, width: 10, height: 10, fill: lines[index % lines.length] }), drawn("text", { x: left + 24, y: 17 + 16 * index }, configurations[index].name));
  });
  svg.append(drawn("text", { class: "soft", x: left, y: height - 6 }, "rounds, in the order in which they ran →"));
  replace("scatter", svg, element("p", { class: "hint" }, "Mean latency with nothing attached. A ring is an outlier: more than 3.5 scaled median deviations (MAD) from the median of its configuration."));
}

// What two differ by in each block that both share; disturbed where the host disturbed either.
function blockDifferences(from, to) {
  const key = ([round, phase, block]) => `${round} ${phase} ${block}`;
  const base = new Map((data.details[from].blocks ?? []).map(block => [key(block), block]));
  return (data.details[to].blocks ?? []).filter(block => base.has(key(block))).map(block => {
    const other = base.get(key(block));
    return { round: block[0], ns: block[3] - other[3], disturbed: block[4] || other[4] };
  });
}

function blocksOf(index) {
  const found = blockDifferences(baseline, index), compared = comparison(baseline, index);
  const quiet = found.filter(one => !one.disturbed);
  if (quiet.length < 2) return null;
  const sorted = quiet.map(one => one.ns).sort((a, b) => a - b), at = share => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  const ends = [at(0.02), at(0.98), 0, ...(compared?.ci95_ns ?? [])], room = 0.08 * (Math.max(...ends) - Math.min(...ends) || 1);
  const low = Math.min(...ends) - room, high = Math.max(...ends) + room;
  const left = 60, width = 1120, height = 230, above = 10, base = height - 26;
  const x = place => left + (place + 0.5) / found.length * width, y = ns => base - (Math.min(high, Math.max(low, ns)) - low) / (high - low) * (base - above);
  const name = `${configurations[index].name} less ${configurations[baseline].name}`, colour = lines[index % lines.length];
  const svg = drawn("svg", { viewBox: `0 0 1200 ${height}`, role: "img", "aria-label": `${name}, by block` });
  const step = niceStep((high - low) / 1000, 5);
  for (let value = Math.ceil(low / 1000 / step) * step; value * 1000 <= high; value += step) {
    svg.append(drawn("line", { class: "axis", x1: left, x2: left + width, y1: y(value * 1000), y2: y(value * 1000) }), drawn("text", { class: "soft", x: 4, y: y(value * 1000) + 4 }, `${+value.toPrecision(6)} µs`));
  }
  found.forEach((one, place) => svg.append(drawn("circle", { class: one.disturbed ? "block disturbed" : "block", cx: x(place), cy: y(one.ns), r: 2.5, fill: one.disturbed ? "none" : colour, stroke: one.disturbed ? "#999" : colour, "fill-opacity": 0.6 },
    drawn("title", {}, `round ${one.round + 1}: ${signed(one.ns)} µs${one.disturbed ? ", disturbed by the host" : ""}`))));
  const means = [];
  for (const round of [...new Set(found.map(one => one.round))]) {
    const places = found.map((one, place) => [one, place]).filter(([one]) => one.round === round);
    const counted = places.map(([one]) => one).filter(one => !one.disturbed);
    if (!counted.length) continue;
    means.push(counted.reduce((sum, one) => sum + one.ns, 0) / counted.length);
    const end = x(places[places.length - 1][1]), last = means[means.length - 1], mean = means.reduce((a, b) => a + b, 0) / means.length;
    svg.append(drawn("line", { class: "round", x1: x(places[0][1]), x2: end, y1: y(last), y2: y(last), stroke: colour, "stroke-width": 2 }));
    if (means.length < 2) continue;
    const error = Math.sqrt(means.reduce((sum, one) => sum + (one - mean) ** 2, 0) / (means.length - 1) / means.length);
    svg.append(drawn("path", { class: "so-far", d: `M${end} ${y(mean - error)}V${y(mean + error)}M${end - 5} ${y(mean)}h10`, stroke: "currentColor", fill: "none", "stroke-width": 1.5 },
      drawn("title", {}, `after ${means.length} rounds: ${signed(mean)} µs, standard error ${micros(error)} µs`)));
  }
  svg.append(drawn("text", { class: "soft", x: left, y: height - 6 }, "blocks, in the order in which they were measured →"));
  const scattered = compared?.scatter, said = scattered ? ` A round's difference is uncertain by ${micros(scattered.within_ns)} µs by its own blocks; rounds scatter by ${micros(scattered.between_ns)} µs beyond that.` : "";
  return [element("h3", {}, name), svg, element("p", { class: "hint" }, `A dot is a block, grey where the host disturbed it; a bar, the mean of a round; a cross, the mean of the rounds so far with its standard error.${said}`)];
}

function blocks() {
  const parts = configurations.map((_, index) => index).filter(index => index !== baseline).map(blocksOf).filter(part => part);
  if (parts.length) replace("blocks", ...parts.flat());
  else at("differences").remove();
}

function trust() {
  const rows = [
    ["probe effect", found => `${found.probe_effect_percent.toFixed(1)} %` + (found.probe_effect_ci95_percent ? ` (${found.probe_effect_ci95_percent.map(value => value.toFixed(1)).join(" to ")})` : " (no interval)")],
    ["residual", found => percent(found.residual_ns_per_op / Math.max(1, found.traced_latency.mean_ns - (found.queued_ns_per_op ?? 0)))],
    ["conservation, deviation", found => found.conservation_percent.toFixed(3) + " %"],
    ["operations followed", found => String(found.losses.followed)],
    ["lost", found => { const lost = Object.values(found.losses.lost).reduce((a, b) => a + b, 0); return `${lost} (${percent(lost / Math.max(1, found.losses.followed))})`; }],
    ["records committed, lost", found => `${found.records.committed}, ${found.records.lost}`],
    ["samples, lost", found => `${found.samples.all}, ${found.samples.lost}`],
    ["rounds", found => String(found.rounds)],
    ["latency, mean", found => `${micros(found.latency.mean_ns)}${spread(found.latency.ci95_ns)} µs`],
    ["latency, median, 99 %", found => `${micros(found.latency.p50_ns)}, ${micros(found.latency.p99_ns)} µs`],
    ["operations per second", found => found.throughput_per_s.toFixed(0)],
    ...(configurations.some(found => found.write_back) ? [["written back by the kernel, beside the latency", found => found.write_back ? `${found.write_back.bytes_per_op.toFixed(0)} bytes, ${found.write_back.device_ns_per_op.toFixed(0)} ns of the disk's, per operation` : "–"]] : []),
    ["complete", found => found.incomplete.length ? element("span", { class: "bad" }, "INCOMPLETE: " + found.incomplete.join("; ")) : element("span", { class: "good" }, "yes")],
  ];
  replace("trust-table", element("div", { class: "wide" }, element("table", { "aria-label": "quality" },
    element("thead", {}, element("tr", {}, element("th", {}, ""), configurations.map(found => element("th", { scope: "col" }, found.name)))),
    element("tbody", {}, rows.map(([name, value]) => element("tr", {}, element("td", {}, name), configurations.map(found => element("td", { style: name === "complete" ? "white-space: normal" : null }, value(found)))))))));
}

function machine() {
  const flat = Object.entries(result.environment).filter(([, value]) => value !== null && typeof value !== "object");
  const settings = [...new Set(configurations.flatMap(found => Object.keys(found.settings)))].sort();
  replace("machine", element("h3", {}, "Machine"), element("table", {}, flat.map(([name, value]) => element("tr", {}, element("td", {}, name), element("td", { class: "words" }, String(value))))),
    element("h3", {}, "Configurations, as found from inside"), element("div", { class: "wide" }, element("table", {}, element("thead", {}, element("tr", {}, element("th", {}, ""), configurations.map(found => element("th", {}, found.name)))), settings.map(name => element("tr", {}, element("td", {}, name), configurations.map(found => element("td", { class: "words" }, found.settings[name] ?? "–")))))));
}

// Flame graphs: trees of [name, layer, ns, children].
let zoomed = null;
function treeOf(index, kind) {
  const root = { name: configurations[index].name, layer: null, own: 0, children: new Map() };
  for (const [frames, ns] of data.stacks[index][kind]) {
    let node = root;
    for (const frame of frames) {
      const [name, layer] = data.frames[frame];
      const key = name + "\u0000" + (layer ?? "");
      if (!node.children.has(key)) node.children.set(key, { name, layer, own: 0, children: new Map() });
      node = node.children.get(key);
    }
    node.own += ns;
  }
  return root;
}
function total(node) {
  node.ns = node.own;
  for (const child of node.children.values()) node.ns += total(child);
  return node.ns;
}
function subtract(node, other) {
  node.delta = node.ns - (other ? other.ns : 0);
  for (const [key, child] of node.children) subtract(child, other?.children.get(key));
}
function flame() {
  const index = +at("flame-of").value, less = at("flame-less").value, kind = at("flame-kind").value;
  const root = treeOf(index, kind);
  total(root);
  if (less !== "") {
    const other = treeOf(+less, kind);
    total(other);
    subtract(root, other);
  }
  let shown = root;
  for (const key of zoomed || []) shown = shown.children.get(key) || shown;
  const wanted = at("flame-search").value.trim().toLowerCase();
  const width = 1200, row = 17, rects = [];
  let deepest = 0, found = 0;
  const visit = (node, x, depth, path, inside) => {
    const wide = shown.ns > 0 ? node.ns / shown.ns * width : 0;
    if (wide < 0.4) return;
    deepest = Math.max(deepest, depth);
    const hit = wanted !== "" && node.name.toLowerCase().includes(wanted);
    if (hit && !inside) found += node.ns;
    rects.push({ node, x, depth, wide, path, hit });
    let next = x;
    for (const [key, child] of node.children) {
      visit(child, next, depth + 1, path.concat(key), inside || hit);
      next += child.ns / shown.ns * width;
    }
  };
  visit(shown, 0, 0, zoomed || [], false);
  const height = (deepest + 1) * row + 4;
  const largest = Math.max(1, ...rects.map(rect => Math.abs(rect.node.delta || 0)));
  const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "flame graph" });
  for (const { node, x, depth, wide, path, hit } of rects) {
    const y = height - (depth + 1) * row - 2, strength = Math.sqrt(Math.abs(node.delta || 0) / largest);
    const tint = Math.round(255 - 180 * strength);
    const paint = less === "" ? (node.layer ? data.colours[node.layer] || "#bab0ac" : "#e4ded4") : node.delta >= 0 ? `rgb(255,${tint},${tint})` : `rgb(${tint},${tint},255)`;
    const text = `${node.name}\n${micros(node.ns)} µs per operation, ${percent(node.ns / (root.ns || 1))}` + (less === "" ? "" : `, ${signed(node.delta)} µs`) + (node.layer ? `\n${node.layer}` : "");
    const group = drawn("g", { class: "frame" + (hit ? " hit" : wanted ? " dim" : ""), tabindex: wide > 20 ? 0 : null, onclick: () => zoom(path), onkeydown: event => { if (event.key === "Enter") zoom(path); } },
      drawn("rect", { x, y, width: wide, height: row - 1, fill: paint, rx: 1.5 }), drawn("title", {}, text));
    const letters = Math.floor((wide - 6) / 6.4);
    if (letters > 2) group.append(drawn("text", { x: x + 3, y: y + 12 }, node.name.length > letters ? node.name.slice(0, letters - 1) + "…" : node.name));
    svg.append(group);
  }
  replace("flame", rects.length && root.ns > 0 ? svg : element("p", { class: "hint" }, "nothing was sampled"));
  replace("flame-found", wanted ? `${percent(found / (shown.ns || 1))} of what is shown` : "");
  replace("flame-hint", less === "" ? "Width is time per operation, colour the layer. A click zooms, Enter does where the focus is." : "Width is the first's time per operation; red has become more than in the second, blue less. What only the second has is not in it: swap the two.");
}
function zoom(path) {
  zoomed = path;
  flame();
}

configurations.forEach((found, index) => {
  at("flame-of").append(element("option", { value: index }, found.name));
  at("flame-less").append(element("option", { value: index }, found.name));
});
at("flame-less").prepend(element("option", { value: "", selected: "" }, "nothing"));
at("flame-less").value = "";
for (const id of ["flame-kind", "flame-of", "flame-less"]) at(id).addEventListener("change", () => zoom(null));
at("flame-search").addEventListener("input", flame);
at("flame-reset").addEventListener("click", () => zoom(null));
for (const input of document.getElementsByName("which")) input.addEventListener("change", () => { which = input.value; bars(); stages(); });
at("corrected").addEventListener("change", event => { corrected = event.target.checked; bars(); stages(); });
at("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  root.classList.toggle("dark", !dark);
  root.classList.toggle("light", dark);
});

trust();
bars();
stages();
replace("histogram", curves(data.details.map((detail, index) => ({ name: configurations[index].name, colour: lines[index % lines.length], points: detail.histogram })), 280, "latencies"), element("p", { class: "hint" }, "Share of the operations over their latency, logarithmic, with nothing attached."));
scatter();
blocks();
flame();
machine();
document.documentElement.dataset.ready = "yes";
})();
