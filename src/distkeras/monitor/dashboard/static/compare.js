// Several runs in one chart a metric, and what is different in their settings.

import { get } from "./api.js";
import { AXES, Chart } from "./charts.js";
import { RunData } from "./data.js";
import { card, el, pill, replace, section, segments } from "./dom.js";
import { metric } from "./format.js";
import { DASHES, SERIES, STATUS } from "./palette.js";
import { metricNames } from "./run.js";
import { Table } from "./table.js";

const EVERY_MILLISECONDS = 3000;

export class ComparePage {
  constructor(ids, onState) {
    this.onState = onState;
    this.axis = "time";
    this.runs = ids.map((id, number) => ({
      id, name: shortName(id, ids), data: new RunData(), cursor: "", color: SERIES[number % SERIES.length],
      dash: DASHES[Math.floor(number / SERIES.length) % DASHES.length],
    }));
    this.charts = new Map();
    this.place = el("div", { class: "cards" });
    this.table = new Table("Runs that are compared", [], { most: 100 });
    const axes = segments("Against", Object.entries(AXES).map(([key, axis]) => [key, axis.text]), this.axis, (key) => {
      this.axis = key;
      this.draw();
    });
    this.node = el("div", { class: "stack" },
      section("Comparison", "validation where a run has it, else its windows", axes, this.place),
      section("What is different", null, null, card(this.table.node)));
    this.isClosed = false;
    this.timer = 0;
    this.look();
  }

  async look() {
    try {
      await Promise.all(this.runs.map(async (run) => {
        const answer = await get("api/run", { id: run.id, cursor: run.cursor });
        run.cursor = answer.cursor;
        run.data.apply(answer);
      }));
      if (this.isClosed) return;
      this.onState("live");
      this.draw();
    } catch (error) {
      if (this.isClosed) return;
      this.onState(error.status < 500 ? "refused" : "lost", error);
      if (error.status < 500) return;
    }
    this.timer = setTimeout(() => this.look(), EVERY_MILLISECONDS);
  }

  draw() {
    const names = [...new Set(this.runs.flatMap((run) => metricNames(run.data)))];
    for (const name of names) {
      if (!this.charts.has(name)) this.charts.set(name, new Chart(name, { format: metric, height: 260 }));
      const { x, series } = together(this.runs.map((run) => ({ ...run, ...lineOf(run.data, name, this.axis) })));
      this.charts.get(name).update(x, series, this.axis);
    }
    if (this.place.childElementCount !== names.length) replace(this.place, names.map((name) => this.charts.get(name).node));
    this.drawTable();
  }

  drawTable() {
    const settings = this.runs.map((run) => run.data.about.settings ?? {});
    const keys = [...new Set(settings.flatMap((each) => Object.keys(each)))];
    const different = keys.filter((key) => new Set(settings.map((each) => JSON.stringify(each[key]))).size > 1);
    this.table.setColumns([
      { name: "run", title: "Run", of: (run) => run.name, cell: (run) => el("a", { href: `#run=${encodeURIComponent(run.id)}` }, run.name) },
      { name: "status", title: "Status", of: (run) => run.data.about.status, cell: (run) => pill(STATUS[run.data.about.error ? "unreadable" : run.data.about.status]) },
      ...different.map((key) => ({ name: `setting ${key}`, title: key, of: (run) => run.data.about.settings?.[key], cell: (run) => String(run.data.about.settings?.[key] ?? "–") })),
    ]);
    this.table.update(this.runs);
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
    for (const chart of this.charts.values()) chart.close();
  }
}

// A run's line for a metric: its validation, else the evaluations of its center, else its windows.
function lineOf(data, name, axis) {
  const { x, places } = data.axis(axis);
  const pick = (column) => places.map((place) => column?.[place] ?? null);
  const candidates = [pick(data.atEpochs(`val_${name}`)), pick(data.atEpochs(name, data.evaluated)), pick(data.columns.metrics[name])];
  return { x, values: candidates.find((column) => column.some((value) => value !== null)) ?? [] };
}

// uPlot wants one x for all: that of all runs together, with gaps where another run has its places.
function together(runs) {
  const x = [...new Set(runs.flatMap((run) => run.x))].sort((one, other) => one - other);
  const places = new Map(x.map((value, place) => [value, place]));
  const series = runs.map((run) => {
    const values = new Array(x.length).fill(null);
    run.values.forEach((value, place) => (values[places.get(run.x[place])] = value));
    const few = run.values.filter((value) => value !== null).length < 60;
    return { label: run.name, color: run.color, dash: run.dash, values, points: few, joined: true };
  });
  return { x, series };
}

// The end of an address that no other has.
export function shortName(id, ids) {
  const parts = id.split("/");
  for (let length = 1; length < parts.length; length++) {
    const name = parts.slice(-length).join("/");
    if (ids.filter((other) => other.split("/").slice(-length).join("/") === name).length === 1) return name;
  }
  return id;
}
