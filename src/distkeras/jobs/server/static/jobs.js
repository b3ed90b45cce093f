// Shows the job that the address asks for, after its #, or the table of all jobs.

import { get } from "../runs/static/api.js";
import { card, el, pill, replace, section } from "../runs/static/dom.js";
import { date, duration } from "../runs/static/format.js";
import { Frame } from "../runs/static/frame.js";
import { Table } from "../runs/static/table.js";
import { JobPage, STATES, secondsOf } from "./job.js";

const EVERY_MILLISECONDS = 2000;

class JobsPage {
  constructor(onState) {
    this.onState = onState;
    this.jobs = [];
    this.word = "";
    this.state = null;
    this.input = el("input", {
      type: "search", placeholder: "Name, file or state", "aria-label": "Search the jobs",
      oninput: () => {
        this.word = this.input.value.toLowerCase();
        this.draw();
      },
    });
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Show jobs of one state" });
    this.table = new Table("Jobs", COLUMNS, { sort: "submitted", descending: true, most: 100, rowOf: (job) => ({ "data-job": job.id }) });
    this.empty = el("div", { class: "notice", hidden: true }, el("p", {}, "There is no job yet. Submit one from a project:"),
      el("p", {}, el("code", {}, "distkeras submit train.py --profile NAME")));
    this.holder = card(this.table.node);
    this.node = section("Jobs", null, this.input, this.empty, this.chips, this.holder);
    this.timer = 0;
    this.isClosed = false;
    this.look();
  }

  async look() {
    try {
      const { jobs } = await get("api/jobs");
      if (this.isClosed) return;
      this.onState("live");
      this.jobs = jobs;
      this.draw();
    } catch (error) {
      if (this.isClosed) return;
      this.onState(error.status < 500 ? "refused" : "lost", error);
      if (error.status < 500) return;
    }
    this.timer = setTimeout(() => this.look(), EVERY_MILLISECONDS);
  }

  draw() {
    const counts = new Map();
    for (const job of this.jobs) counts.set(job.state, (counts.get(job.state) ?? 0) + 1);
    const key = JSON.stringify([...counts, this.state]);
    if (key !== this.key) {
      this.key = key;
      replace(this.chips, [...counts].map(([state, number]) => el("button", {
        type: "button", mark: `var(${STATES[state].color})`, "aria-pressed": String(state === this.state),
        onclick: () => {
          this.state = this.state === state ? null : state;
          this.draw();
        },
      }, `${number} ${STATES[state].text}`)));
    }
    const fits = (job) => (!this.state || job.state === this.state)
      && `${job.name} ${job.entry} ${job.id} ${job.state}`.toLowerCase().includes(this.word);
    this.empty.hidden = this.jobs.length > 0;
    this.holder.hidden = this.jobs.length === 0;
    this.table.update(this.jobs.filter(fits));
  }

  close() {
    this.isClosed = true;
    clearTimeout(this.timer);
  }
}

const COLUMNS = [
  { name: "name", title: "Job", of: (job) => job.name, cell: nameOf },
  { name: "state", title: "State", of: (job) => job.state, cell: (job) => pill(STATES[job.state]) },
  { name: "entry", title: "File", of: (job) => job.entry, cell: (job) => el("span", { title: [job.entry, ...job.arguments].join(" ") }, job.entry) },
  { name: "code", title: "Exit code", of: (job) => job.exit_code, cell: (job) => (job.exit_code === null ? "" : String(job.exit_code)), number: true },
  { name: "seconds", title: "Time", of: secondsOf, cell: (job) => duration(secondsOf(job)), number: true },
  { name: "submitted", title: "Submitted", of: (job) => job.submitted, cell: (job) => date(job.submitted), number: true },
];

function nameOf(job) {
  return el("div", {}, el("a", { href: `#job=${job.id}`, "data-key": `job ${job.id}` }, job.name), el("div", { class: "where" }, job.id));
}

new Frame("Jobs", "All jobs", (frame, wanted) => {
  const job = wanted.get("job");
  if (job) frame.show(new JobPage(job, frame.tell), [job]);
  else frame.show(new JobsPage(frame.tell), []);
});
