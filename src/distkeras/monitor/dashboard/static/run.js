// The page of one run: is it learning, is it fast, is anyone in trouble; then what explains it.

import { follow } from "./api.js";
import { AXES, Chart, stacked } from "./charts.js";
import { RunData } from "./data.js";
import { Epochs, Log, Settings } from "./details.js";
import { el, replace, section, segments, setText } from "./dom.js";
import { bytes, clock, count, duration, metric, milliseconds, percent, short } from "./format.js";
import { Head } from "./head.js";
import { Heat } from "./heat.js";
import { DASHES, SERIES, SHARES } from "./palette.js";
import { Workers } from "./workers.js";

export class RunPage {
  constructor(id, name, onState) {
    this.data = new RunData();
    this.axis = "time";
    this.charts = new Map();
    this.head = new Head(id, name);
    this.epochs = new Epochs();
    this.workers = new Workers();
    this.heat = new Heat();
    this.log = new Log();
    this.settings = new Settings();
    this.learning = el("div", { class: "cards" });
    this.snapshots = el("p", { class: "muted" });
    this.serving = el("div", { class: "cards small" });
    this.speed = this.chart("speed", "Rows per second", { format: short, fromZero: true });
    this.each = this.chart("each", "Rows per second of each worker", { format: short, fromZero: true });
    this.shares = this.chart("shares", "Where the workers' time goes", { format: percent, range: [0, 1] });
    this.wire = this.chart("wire", "Bytes per second", { format: bytes, height: 150, fromZero: true });
    this.rest = el("div", {}, this.sections());
    this.node = el("div", { class: "stack" }, this.head.node, this.rest);
    this.rest.hidden = true;
    this.frame = 0;
    this.end = follow({ ask: "api/run", stream: "api/stream", parameters: { id } }, (answer) => this.take(answer), onState);
  }

  sections() {
    const axes = segments("Against", Object.entries(AXES).map(([key, axis]) => [key, axis.text]), this.axis, (key) => {
      this.axis = key;
      this.draw();
    });
    this.server = section("Server", null, null, this.snapshots, this.serving);
    return [
      section("Is it learning?", null, axes, this.learning),
      section("Is it fast?", null, null, el("div", { class: "cards" }, this.speed.node, this.shares.node, this.each.node)),
      this.workers.node,
      section("Staleness", "how old the center was that a window began with", null, el("div", { class: "card" }, this.heat.node)),
      this.epochs.node,
      this.server,
      this.log.node,
      this.settings.node,
    ];
  }

  chart(key, title, options) {
    if (!this.charts.has(key)) this.charts.set(key, new Chart(title, options));
    return this.charts.get(key);
  }

  take(answer) {
    this.data.apply(answer);
    // A hidden tab draws when it is looked at.
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    const data = this.data;
    this.head.update(data);
    this.rest.hidden = Boolean(data.about.error);
    if (data.about.error) return;
    this.drawLearning();
    this.drawSpeed();
    this.drawServer();
    for (const part of [this.workers, this.heat, this.epochs, this.log, this.settings]) part.update(data);
    this.node.dataset.windows = String(data.head.windows);
    this.node.dataset.samples = String(data.head.samples);
  }

  // A chart for each metric, with its value on the validation rows and the evaluations of the center.
  drawLearning() {
    const { data } = this;
    const { x, places } = data.axis(this.axis);
    const pick = (column) => places.map((place) => column[place] ?? null);
    const names = metricNames(data);
    const shown = names.map((name) => {
      const chart = this.chart(`metric ${name}`, name, { format: metric, height: 240 });
      const windows = data.columns.metrics[name] ?? [];
      chart.update(x, [
        { label: data.epochs.length ? "training windows" : "windows", values: pick(windows), color: "--sky", width: 1.25 },
        { label: "epoch", values: pick(data.atEpochs(name)), color: "--blue", points: true, width: 2 },
        { label: "validation", values: pick(data.atEpochs(`val_${name}`)), color: "--orange", points: true, width: 2 },
        { label: "center", values: pick(data.atEpochs(name, data.evaluated)), color: "--orange", points: data.evaluated.length < 60, dash: DASHES[1] },
      ], this.axis);
      return chart.node;
    });
    if (shown.length !== this.learning.childElementCount || shown.length === 0) {
      replace(this.learning, shown.length ? shown : el("p", { class: "card empty" }, waitingFor(data)));
    }
  }

  drawSpeed() {
    const { data } = this;
    const { x } = data.axis("time");
    const { rate, shares } = data.columns;
    this.speed.update(x, [{ label: "all workers", values: rate, color: "--blue", width: 2, fill: 0.1 }], "time");
    this.drawEach(x);
    const totals = rate.map((_, place) => Object.values(shares).reduce((sum, column) => sum + (column[place] ?? 0), 0));
    const parts = Object.entries(SHARES).map(([name, share]) => ({
      label: share.text, color: share.color,
      values: (shares[name] ?? []).map((value, place) => (totals[place] > 0 ? value / totals[place] : null)),
    }));
    const { lines, bands: between } = stacked(parts);
    this.shares.update(x, lines, "time", between);
  }

  // A line for each worker; of many, the middle, the band of most of them, and the slowest by name.
  drawEach(x) {
    const { named, bands } = this.data.columns;
    const [low, middle, high] = bands;
    const series = !low ? [] : [
      { label: "median", values: middle, color: "--blue", width: 2 },
      { label: "fastest tenth", values: high, color: "--grey", width: 0.75 },
      { label: "slowest tenth", values: low, color: "--grey", width: 0.75 },
    ];
    Object.entries(named).forEach(([index, values], number) => {
      const place = number + (low ? 1 : 0);
      series.push({
        label: `worker ${index}`, values, color: SERIES[place % SERIES.length], width: 1.25,
        dash: DASHES[Math.floor(place / SERIES.length) % DASHES.length],
      });
    });
    this.each.node.hidden = series.length < 2;
    this.each.update(x, series, "time", low ? [[2, 3, "--grey"]] : []);
  }

  drawServer() {
    const { x } = this.data.axis("time");
    const { servers, bytes_out: out, bytes_in: back } = this.data.columns;
    const each = (name, label, extra = {}) => Object.entries(servers[name] ?? {}).map(([server, values], number, all) => ({
      label: all.length > 1 ? `${label} ${server}` : label, values, color: SERIES[number % SERIES.length], ...extra,
    }));
    const panels = [
      ["memory", "Memory", bytes, each("memory", "server")],
      ["applying", "Time to apply an update", milliseconds, [...each("apply_p50", "median"), ...each("apply_p99", "99 of 100", { color: "--orange" })]],
      ["exchanges", "Exchanges per second", short, each("exchanges", "server")],
      ["norms", "Norms", metric, [...each("center_norm", "center"), ...each("message_norm", "message", { color: "--orange" })]],
    ];
    const perSecond = (column) => column.map((value) => (value === null ? null : value / this.data.width));
    const wire = [{ label: "to the server", values: perSecond(out), color: "--blue" }, { label: "to the workers", values: perSecond(back), color: "--orange" }];
    this.wire.update(x, wire, "time");
    const shown = panels.filter(([, , , series]) => series.some((line) => line.values.some((value) => value !== null)));
    for (const [key, title, format, series] of shown) {
      this.chart(key, title, { format, height: 150, fromZero: key !== "norms" }).update(x, series, "time");
    }
    const hasBytes = out.some((value) => value > 0);
    const nodes = [...shown.map(([key]) => this.charts.get(key).node), ...(hasBytes ? [this.wire.node] : [])];
    const { count: number, bytes: size, seconds, t } = this.data.servers.snapshots;
    setText(this.snapshots, number ? `${count(number)} snapshots, the last of ${bytes(size)} in ${duration(seconds)}, at ${clock(t)}` : "No snapshot yet");
    this.server.hidden = nodes.length === 0 && number === 0;
    if (nodes.length !== this.serving.childElementCount) replace(this.serving, nodes);
  }

  close() {
    this.end();
    cancelAnimationFrame(this.frame);
    for (const chart of this.charts.values()) chart.close();
    this.workers.close();
    this.heat.close();
  }
}

// The metrics of a run: loss first, then as they came; those of validation belong to theirs.
export function metricNames(data) {
  const names = new Set(Object.keys(data.columns.metrics));
  for (const entry of [...data.epochs, ...data.evaluated]) {
    for (const name of Object.keys(entry.logs)) names.add(name.startsWith("val_") ? name.slice(4) : name);
  }
  return [...names].sort((one, other) => Number(other === "loss") - Number(one === "loss"));
}

function waitingFor(data) {
  const states = data.workers.state ?? [];
  if (data.about.status !== "running") return "This run has no windows.";
  if (states.length === 0) return `No worker has started yet, after ${duration(data.head.silent ?? 0)}. Does Spark have free slots?`;
  return "The workers have started, and no window has come yet.";
}
