// The staleness of windows as a histogram over time: the darker, the larger the part of the bucket's windows.

import { Canvas } from "./canvas.js";
import { el, replace, setText } from "./dom.js";
import { clock, count, percent } from "./format.js";
import { color } from "./palette.js";

const ROW = 22;

export class Heat {
  constructor() {
    this.canvas = new Canvas((context, width, height) => this.paint(context, width, height), {
      role: "img",
      onpointermove: (event) => this.point(event),
      onpointerleave: () => setText(this.tip, this.words),
    });
    this.names = el("ol", { "aria-hidden": "true" });
    this.axis = el("div", { class: "axis", "aria-hidden": "true" });
    this.tip = el("p", { class: "tip" });
    this.node = el("div", { class: "heat" }, this.names, this.canvas.node, this.axis, this.tip);
  }

  update(data) {
    this.grid = data.columns.staleness;
    this.end = data.head.seconds || 1;
    this.width = data.width;
    const totals = sumOver(this.grid);
    this.groups = Math.max(totals.findLastIndex((value) => value > 0) + 1, 1);
    this.canvas.height = this.groups * ROW;
    this.names.style.gridTemplateRows = `repeat(${this.groups}, ${ROW}px)`;
    const order = Array.from({ length: this.groups }, (_, place) => this.groups - 1 - place);
    replace(this.names, order.map((group) => el("li", {}, label(group))));
    replace(this.axis, [0, 0.5, 1].map((part) => el("span", {}, clock(part * this.end))));
    const all = totals.reduce((sum, value) => sum + value, 0);
    const parts = totals.slice(0, this.groups).map((value, group) => `${label(group)}: ${percent(value / all)}`);
    this.words = all ? `Updates since the worker's pull: ${count(all)} windows, ${count(data.head.updates)} updates. ${parts.join(" · ")}` : "No windows yet";
    setText(this.tip, this.words);
    this.canvas.node.setAttribute("aria-label", `Staleness. ${this.words}`);
    this.canvas.draw();
  }

  paint(context, width) {
    this.grid.forEach((counts, place) => {
      const all = counts?.reduce((sum, value) => sum + value, 0);
      if (!all) return;
      const left = ((place * this.width) / this.end) * width;
      const right = Math.min((((place + 1) * this.width) / this.end) * width, width);
      for (let group = 0; group < this.groups; group++) {
        if (!counts[group]) continue;
        const opacity = 0.08 + 0.92 * Math.sqrt(counts[group] / all);
        context.fillStyle = color("--blue", Math.round(opacity * 20) / 20);
        context.fillRect(left, (this.groups - 1 - group) * ROW + 1, Math.max(right - left, 0.6) + 0.3, ROW - 2);
      }
    });
  }

  point(event) {
    const { x, y } = this.canvas.at(event);
    const place = Math.min(this.grid.length - 1, Math.max(0, Math.floor((x * this.end) / this.width)));
    const group = this.groups - 1 - Math.min(this.groups - 1, Math.max(0, Math.floor(y * this.groups)));
    const counts = this.grid[place] ?? [];
    const all = counts.reduce((sum, value) => sum + value, 0);
    setText(this.tip, `At ${clock(x * this.end)}: ${count(counts[group] ?? 0)} of ${count(all)} windows with a staleness of ${label(group)}`);
  }

  close() {
    this.canvas.close();
  }
}

function sumOver(grid) {
  const totals = [];
  for (const counts of grid) counts?.forEach((value, group) => (totals[group] = (totals[group] ?? 0) + value));
  return totals;
}

// Groups are 0, 1, 2 to 3, 4 to 7, and so on.
export function label(group) {
  if (group < 2) return String(group);
  return `${2 ** (group - 1)}–${2 ** group - 1}`;
}
