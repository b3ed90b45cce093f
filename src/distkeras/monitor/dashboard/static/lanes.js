// A lane for each worker: its states over the time of the run, and where a new attempt began.

import { Canvas } from "./canvas.js";
import { Crowd } from "./crowd.js";
import { el, replace, setText } from "./dom.js";
import { clock, duration } from "./format.js";
import { color, STATES } from "./palette.js";

const TALLEST = 26;
const MOST_HEIGHT = 420;
const MOST_LANES = 128;
const FEW_LANES = 24;
const ENDED = ["done", "failed", "resting"];

export class Lanes {
  constructor(onWorker) {
    this.onWorker = onWorker;
    this.chosen = null;
    this.crowd = new Crowd();
    this.note = el("p", { class: "tip" });
    this.canvas = new Canvas((context, width) => this.paint(context, width), {
      tabindex: "0",
      role: "img",
      onpointermove: (event) => this.point(event),
      onpointerleave: () => this.choose(null),
      onclick: () => this.chosen !== null && this.onWorker(this.workers.index[this.chosen]),
      onkeydown: (event) => this.onKey(event),
    });
    this.axis = el("div", { class: "axis", "aria-hidden": "true" });
    this.keys = el("div", { class: "keys" });
    this.tip = el("p", { class: "tip", "aria-live": "polite" });
    this.node = el("div", { class: "lanes" }, this.keys, this.note, this.crowd.node, this.canvas.node, this.axis, this.tip);
  }

  update(data) {
    this.end = Math.max(data.head.seconds ?? 0, ...data.lanes.map((lane) => lane.at(-1)?.[0] ?? 0), 1);
    this.gutter = 14 + 7 * String(data.workers.index.at(-1) ?? 0).length;
    this.node.style.setProperty("--gutter", `${this.gutter}px`);
    this.choosePlaces(data);
    const count = this.lanes.length;
    this.row = Math.min(TALLEST, MOST_HEIGHT / Math.max(count, 1));
    this.canvas.height = Math.max(Math.round(this.row * count), 1);
    const present = new Set(data.lanes.flat().map(([, state]) => state));
    const keys = Object.entries(STATES).filter(([name]) => present.has(name));
    replace(this.keys, keys.map(([, state]) => el("span", { mark: `var(${state.color})` }, state.text)));
    replace(this.axis, [0, 0.25, 0.5, 0.75, 1].map((part) => el("span", {}, clock(part * this.end))));
    const words = `Lanes of ${count} workers. All: ${summary(data.workers.state)}. The table of workers shows the same.`;
    this.canvas.node.setAttribute("aria-label", words);
    this.canvas.draw();
    if (this.chosen === null) setText(this.tip, count > 1 ? "Point at a lane, or use the arrow keys, for a worker's story." : "");
  }

  // Of very many workers, those have lanes that were in trouble or are slow; the others are counted.
  choosePlaces({ workers, lanes }) {
    const isMany = lanes.length > MOST_LANES;
    this.crowd.node.hidden = this.note.hidden = !isMany;
    this.workers = workers;
    this.lanes = lanes;
    if (!isMany) return;
    this.crowd.update(lanes, this.end, this.gutter);
    const places = lanes.map((_, place) => place);
    const trouble = (place) => workers.problems[place] + workers.attempt[place];
    places.sort((one, other) => trouble(other) - trouble(one) || workers.rows[one] - workers.rows[other]);
    const chosen = places.slice(0, FEW_LANES).sort((one, other) => one - other);
    const pick = (column) => chosen.map((place) => column[place]);
    this.lanes = pick(lanes);
    this.workers = { index: pick(workers.index), attempt: pick(workers.attempt), host: pick(workers.host) };
    setText(this.note, `All ${lanes.length} workers by state, and below the ${FEW_LANES} that were in trouble or have trained the fewest rows`);
  }

  paint(context, width) {
    const gutter = this.gutter;
    this.names(context, gutter);
    const gap = this.row >= 8 ? 3 : this.row >= 4 ? 1 : 0;
    this.lanes.forEach((lane, place) => {
      const top = place * this.row + gap / 2;
      const tall = Math.max(this.row - gap, 0.8);
      lane.forEach(([time, state], number) => {
        const next = lane[number + 1]?.[0] ?? (ENDED.includes(state) ? time + this.end * 0.006 : this.end);
        const x = gutter + (time / this.end) * (width - gutter);
        context.fillStyle = color(STATES[state]?.color ?? "--grey");
        context.fillRect(x, top, Math.max(((next - time) / this.end) * (width - gutter), state === "lost" ? 2 : 0.5), tall);
      });
      this.marks(context, lane, width - gutter, top, tall);
    });
    if (this.chosen !== null) {
      context.strokeStyle = color("--text");
      context.lineWidth = 1.5;
      context.strokeRect(gutter + 0.75, this.chosen * this.row + 0.75, width - gutter - 1.5, Math.max(this.row - 1.5, 2));
    }
  }

  // A notch where a new process of the worker began.
  marks(context, lane, width, top, tall) {
    if (tall < 3) return;
    lane.forEach(([time, , attempt], number) => {
      if (number > 0 && attempt !== lane[number - 1][2]) {
        context.fillStyle = color("--surface");
        context.fillRect(this.gutter + (time / this.end) * width - 1, top, 2, tall);
      }
    });
  }

  // The numbers at the left: as many as have room.
  names(context, gutter) {
    context.font = "11px system-ui";
    context.textBaseline = "middle";
    context.textAlign = "right";
    context.fillStyle = color("--muted");
    const each = Math.ceil(15 / this.row);
    this.workers.index.forEach((index, place) => {
      if (place % each === 0) context.fillText(String(index), gutter - 8, (place + 0.5) * this.row + 0.5);
    });
  }

  point(event) {
    const { x, y } = this.canvas.at(event);
    const left = this.gutter / this.canvas.node.clientWidth;
    const time = (Math.max(0, x - left) / (1 - left)) * this.end;
    this.choose(Math.min(this.lanes.length - 1, Math.max(0, Math.floor(y * this.lanes.length))), time);
  }

  choose(place, time = this.end) {
    this.chosen = place;
    if (place !== null) setText(this.tip, this.story(place, time));
    this.canvas.draw();
  }

  story(place, time) {
    const lane = this.lanes[place] ?? [];
    let number = lane.findLastIndex(([from]) => from <= time);
    if (number < 0) number = 0;
    if (lane.length === 0) return `Worker ${this.workers.index[place]}`;
    const [from, state, attempt] = lane[number];
    const until = lane[number + 1]?.[0];
    const lasted = until === undefined ? `since ${clock(from)}` : `for ${duration(until - from)}, from ${clock(from)}`;
    const host = this.workers.host[place];
    return `Worker ${this.workers.index[place]}${host ? ` on ${host}` : ""}, attempt ${attempt + 1}: ${STATES[state]?.text ?? state} ${lasted}`;
  }

  onKey(event) {
    const steps = { ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key === "Enter" && this.chosen !== null) this.onWorker(this.workers.index[this.chosen]);
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.choose(Math.max(0, Math.min(this.lanes.length - 1, (this.chosen ?? -1) + steps[event.key])));
  }

  close() {
    this.crowd.close();
    this.canvas.close();
  }
}

export function summary(states) {
  const counts = new Map();
  for (const state of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].map(([state, count]) => `${count} ${STATES[state]?.text ?? state}`).join(", ");
}
