// Charts over time, rows or bytes: uPlot's, with a legend that keys and screen readers reach.

import uPlot from "./vendor/uplot.js";
import { el, replace, setText } from "./dom.js";
import { bytes, clock, duration, short, tick } from "./format.js";
import { color, onTheme } from "./palette.js";

export const AXES = {
  time: { text: "time", format: clock, name: "Time" },
  rows: { text: "rows", format: short, name: "Rows of the center" },
  bytes: { text: "bytes", format: bytes, name: "Bytes on the wire" },
};

const HEIGHT = 210;
const SECONDS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800];

// A series is {label, values, color, format?, dash?, width?, points?, fill?, hidden?}; values has one number,
// or null, for each place of x.
export class Chart {
  constructor(title, { format = short, height = HEIGHT, fromZero = false, range = null } = {}) {
    this.title = title;
    this.format = format;
    this.height = height;
    this.fromZero = fromZero;
    this.range = range;
    this.hidden = new Set();
    this.legend = el("div", { class: "legend" });
    this.place = el("div", { class: "plot", tabindex: "0", role: "img", onkeydown: (event) => this.onKey(event) });
    this.place.addEventListener("blur", () => this.plot?.setCursor({ left: -10, top: -10 }));
    this.node = el("figure", { class: "card chart" },
      el("figcaption", {}, el("h3", {}, title), this.legend), this.place);
    this.plot = null;
    this.shape = "";
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.place);
    this.forget = onTheme(() => this.draw(true));
  }

  update(x, series, axis = "time", bands = []) {
    Object.assign(this, { x, series, axis, bands });
    this.draw();
  }

  draw(anew = false) {
    if (!this.series) return;
    const drawn = this.series.filter((each) => each.values.some((value) => value !== null));
    if (this.x.length < 1 || drawn.length === 0) {
      this.destroy();
      replace(this.place, el("p", { class: "empty" }, "Nothing yet"));
      replace(this.legend);
      return;
    }
    const shape = JSON.stringify([this.axis, this.bands, drawn.map((each) => [each.label, each.color, each.dash])]);
    if (anew || shape !== this.shape || this.plot === null) {
      this.destroy();
      this.shape = shape;
      this.drawn = drawn;
      this.make();
    } else {
      const { min, max } = this.plot.scales.x;
      const before = this.plot.data[0];
      const isZoomed = min > before[0] || max < before[before.length - 1];
      this.drawn = drawn;
      this.plot.setData(this.data(), !isZoomed);
      if (isZoomed) this.plot.redraw();
    }
    this.tell(this.x.length - 1);
  }

  data() {
    return [this.x, ...this.drawn.map((each) => each.values)];
  }

  make() {
    replace(this.place);
    const axis = { stroke: color("--muted"), font: "12px system-ui", grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false } };
    const options = {
      width: Math.max(160, this.place.clientWidth),
      height: this.height,
      padding: [8, 24, 0, 0],
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false } },
      legend: { show: false },
      scales: { x: { time: false }, y: { range: (_, low, high) => this.bounds(low, high) } },
      axes: [
        { ...axis, size: 30, gap: 8, values: (_, places) => places.map(AXES[this.axis].format), space: 70, ...(this.axis === "time" ? { incrs: SECONDS } : {}) },
        { ...axis, size: 62, gap: 6, values: (_, places) => places.map(tick(this.format)), space: 38 },
      ],
      series: [{}, ...this.drawn.map((each) => this.lineOf(each))],
      bands: this.bands.map(([upper, lower, name]) => ({ series: [upper, lower], fill: color(name, 0.2) })),
      hooks: { setCursor: [(plot) => this.tell(plot.cursor.idx ?? this.x.length - 1)] },
    };
    this.plot = new uPlot(options, this.data(), this.place);
    this.makeLegend();
  }

  lineOf(each) {
    return {
      label: each.label,
      show: !this.hidden.has(each.label),
      stroke: color(each.color),
      width: each.width ?? 1.75,
      dash: each.dash,
      fill: each.fill ? color(each.color, each.fill) : undefined,
      spanGaps: each.points === true,
      points: { show: each.points === true || this.x.length < 3, size: 6, fill: color(each.color) },
    };
  }

  bounds(low, high) {
    if (this.range) return this.range;
    if (low === null || high === null) return [0, 1];
    const bottom = this.fromZero ? Math.min(0, low) : low;
    const room = (high - bottom || Math.abs(high) || 1) * 0.08;
    return [this.fromZero && bottom === 0 ? 0 : bottom - room, high + room];
  }

  makeLegend() {
    this.outputs = this.drawn.map(() => el("output", {}));
    const buttons = this.drawn.map((each, place) => {
      const button = el("button", {
        type: "button", mark: `var(${each.color})`, "aria-pressed": String(!this.hidden.has(each.label)),
        title: "Show or hide", onclick: () => this.toggle(each.label, place, button),
      }, each.label, " ", this.outputs[place]);
      return button;
    });
    replace(this.legend, buttons);
  }

  toggle(label, place, button) {
    const hides = !this.hidden.has(label);
    if (hides) this.hidden.add(label);
    else this.hidden.delete(label);
    button.setAttribute("aria-pressed", String(!hides));
    this.plot.setSeries(place + 1, { show: !hides });
  }

  // Puts the values at one place into the legend.
  tell(place) {
    if (!this.outputs) return;
    this.drawn.forEach((each, number) => {
      let at = place;
      while (at > 0 && each.values[at] === null) at--;
      const value = (each.shown ?? each.values)[at];
      setText(this.outputs[number], value === null || value === undefined ? "" : (each.format ?? this.format)(value));
    });
    const words = this.drawn.map((each, number) => `${each.label} ${this.outputs[number].textContent}`).join(", ");
    const where = this.axis === "time" ? duration(this.x[place]) : AXES[this.axis].format(this.x[place]);
    this.place.setAttribute("aria-label", `${this.title} against ${AXES[this.axis].text}. At ${where}: ${words}.`);
  }

  // The arrow keys go through the chart.
  onKey(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || this.plot === null) return;
    event.preventDefault();
    const last = this.x.length - 1;
    const place = Math.max(0, Math.min(last, (this.plot.cursor.idx ?? last) + steps[event.key]));
    this.plot.setCursor({ left: this.plot.valToPos(this.x[place], "x"), top: 10 });
    this.tell(place);
  }

  resize() {
    const width = this.place.clientWidth;
    if (this.plot && width > 0 && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.height });
  }

  destroy() {
    this.plot?.destroy();
    this.plot = null;
    this.outputs = null;
  }

  close() {
    this.destroy();
    this.sizes.disconnect();
    this.forget();
  }
}

// Series on top of each other, for shares of a whole. Returns the lines and the bands between them.
export function stacked(parts) {
  const lines = [];
  let below = null;
  for (const part of parts) {
    const values = part.values.map((value, place) => (value === null ? null : value + (below?.[place] ?? 0)));
    lines.unshift({ ...part, shown: part.values, values, width: 1 });
    below = values;
  }
  // The lowest line is the last: it fills down to zero, the others down to the next.
  lines[lines.length - 1].fill = 0.35;
  const bands = lines.slice(0, -1).map((line, place) => [place + 1, place + 2, line.color]);
  return { lines, bands };
}
