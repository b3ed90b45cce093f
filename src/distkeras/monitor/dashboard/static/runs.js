// The table of all runs, to sort, to filter, and to choose those to compare.

import { get } from "./api.js";
import { card, el, pill, replace, section } from "./dom.js";
import { count, date, duration, metric } from "./format.js";
import { STATUS } from "./palette.js";
import { Table } from "./table.js";

const EVERY_MILLISECONDS = 5000;

export class RunsPage {
  constructor(onState) {
    this.onState = onState;
    this.chosen = new Set();
    this.word = "";
    this.status = null;
    this.input = el("input", {
      type: "search", placeholder: "Name, algorithm or status", "aria-label": "Search the runs",
      oninput: () => {
        this.word = this.input.value.toLowerCase();
        this.draw();
      },
    });
    this.compare = el("a", { role: "button", hidden: true });
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Show runs of one status" });
    this.table = new Table("Runs", COLUMNS(this), { sort: "began", descending: true, most: 100 });
    this.notes = el("div", { class: "stack" });
    this.holder = card(this.table.node);
    this.node = section("Runs", null, this.input, this.notes, this.chips, el("p", {}, this.compare), this.holder);
    this.timer = 0;
    this.isClosed = false;
    this.look();
  }

  async look() {
    try {
      const { searched, runs } = await get("api/runs");
      if (this.isClosed) return;
      this.onState("live");
      this.take(searched, runs);
    } catch (error) {
      if (this.isClosed) return;
      this.onState(error.status < 500 ? "refused" : "lost", error);
      if (error.status < 500) return;
    }
    this.timer = setTimeout(() => this.look(), EVERY_MILLISECONDS);
  }

  take(searched, runs) {
    this.runs = runs.map((run) => ({ ...run, status: run.error ? "unreadable" : run.status }));
    const troubles = searched.filter((place) => place.trouble);
    replace(this.notes, troubles.map((place) =>
      el("div", { class: "notice", role: "alert" }, `${place.address}: ${place.trouble}`)));
    this.draw();
  }

  draw() {
    const counts = new Map();
    for (const run of this.runs) counts.set(run.status, (counts.get(run.status) ?? 0) + 1);
    replace(this.chips, [...counts].map(([status, number]) => el("button", {
      type: "button", mark: `var(${STATUS[status].color})`, "aria-pressed": String(status === this.status), "data-key": `status ${status}`,
      onclick: () => {
        this.status = this.status === status ? null : status;
        this.draw();
      },
    }, `${number} ${STATUS[status].text}`)));
    const fits = (run) => (!this.status || run.status === this.status)
      && `${run.name} ${run.rule} ${STATUS[run.status].text}`.toLowerCase().includes(this.word);
    this.holder.hidden = this.runs.length === 0;
    this.table.update(this.runs.filter(fits));
    this.compare.hidden = this.chosen.size < 2;
    this.compare.textContent = `Compare ${this.chosen.size} runs`;
    this.compare.href = `#${[...this.chosen].map((id) => `compare=${encodeURIComponent(id)}`).join("&")}`;
  }

  choose(id, isChosen) {
    if (isChosen) this.chosen.add(id);
    else this.chosen.delete(id);
    this.draw();
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
  }
}

const COLUMNS = (page) => [
  {
    name: "choose", title: "",
    cell: (run) => (run.error ? "" : el("input", {
      type: "checkbox", "aria-label": `Compare ${run.name}`, "data-key": `choose ${run.id}`, checked: page.chosen.has(run.id),
      onchange: (event) => page.choose(run.id, event.target.checked),
    })),
  },
  { name: "name", title: "Run", of: (run) => run.name, cell: nameOf },
  { name: "status", title: "Status", of: (run) => run.status, cell: (run) => pill(STATUS[run.status]) },
  { name: "rule", title: "Rule", of: (run) => run.rule },
  { name: "workers", title: "Workers", of: (run) => run.workers, cell: (run) => count(run.workers), number: true },
  { name: "epochs", title: "Epochs", of: (run) => run.done, cell: epochsOf, number: true },
  { name: "loss", title: "Loss", of: (run) => lossOf(run), cell: (run) => metric(lossOf(run)), number: true },
  { name: "best", title: "Best", of: (run) => bestOf(run)?.[1], cell: bestCell, number: true },
  { name: "seconds", title: "Time", of: (run) => run.seconds, cell: (run) => duration(run.seconds), number: true },
  { name: "began", title: "Began", of: (run) => run.began, cell: (run) => date(run.began), number: true },
];

function nameOf(run) {
  const link = el("a", { href: `#run=${encodeURIComponent(run.id)}`, "data-key": `run ${run.id}` }, run.name);
  return run.error ? el("div", {}, link, el("div", { class: "where" }, run.error)) : link;
}

function epochsOf(run) {
  if (run.simulation) return "–";
  return run.epochs ? `${count(run.done)} / ${count(run.epochs)}` : count(run.done);
}

function lossOf(run) {
  return run.best?.val_loss ?? run.best?.loss;
}

function bestOf(run) {
  const entries = Object.entries(run.best ?? {});
  return entries.find(([name]) => name.startsWith("val_") && name !== "val_loss") ?? entries.find(([name]) => !name.endsWith("loss"));
}

function bestCell(run) {
  const best = bestOf(run);
  return best ? el("span", {}, metric(best[1]), el("div", { class: "where" }, best[0])) : null;
}
