// How many workers are in which state, over the time of the run: for more workers than lanes can show.

import { Canvas } from "./canvas.js";
import { color, STATES } from "./palette.js";

const SLOTS = 400;
const HEIGHT = 130;

export class Crowd {
  constructor() {
    this.canvas = new Canvas((context, width, height) => this.paint(context, width, height), { role: "img" });
    this.node = this.canvas.node;
  }

  update(lanes, end, gutter) {
    this.gutter = gutter;
    this.counts = countStates(lanes, end);
    this.whole = lanes.length;
    this.canvas.height = HEIGHT;
    const now = Object.entries(this.counts).map(([state, column]) => [state, column.at(-1)]).filter(([, number]) => number);
    const words = now.map(([state, number]) => `${number} ${STATES[state]?.text ?? state}`).join(", ");
    this.node.setAttribute("aria-label", `Workers by state over time. Now: ${words}.`);
    this.canvas.draw();
  }

  paint(context, width, height) {
    // Troubles stand on top, where they are seen.
    const states = Object.keys(this.counts).sort((one, other) => (STATES[other]?.rank ?? 3) - (STATES[one]?.rank ?? 3));
    const below = new Array(SLOTS).fill(0);
    for (const state of states) {
      context.fillStyle = color(STATES[state]?.color ?? "--grey");
      this.counts[state].forEach((number, slot) => {
        if (!number) return;
        // One worker of a thousand is still a line.
        const tall = Math.max((number / this.whole) * height, STATES[state]?.rank < 2 ? 2 : 0);
        const bottom = height - (below[slot] / this.whole) * height;
        const [left, right] = [slot, slot + 1].map((at) => Math.round(this.gutter + (at / SLOTS) * (width - this.gutter)));
        context.fillRect(left, Math.max(bottom - tall, 0), right - left, tall);
        below[slot] += number;
      });
    }
  }

  close() {
    this.canvas.close();
  }
}

function countStates(lanes, end) {
  const counts = {};
  for (const lane of lanes) {
    lane.forEach(([time, state], number) => {
      const first = Math.min(SLOTS - 1, Math.floor((time / end) * SLOTS));
      const next = lane[number + 1]?.[0];
      const last = next === undefined ? SLOTS : Math.floor((next / end) * SLOTS);
      counts[state] ??= new Array(SLOTS).fill(0);
      for (let slot = first; slot < last; slot++) counts[state][slot] += 1;
    });
  }
  return counts;
}
