// The page of one job: how it stands, what it trains, its log.

import { follow, get, post } from "../runs/static/api.js";
import { card, el, pill, replace, section, setText } from "../runs/static/dom.js";
import { bytes, count, date, duration } from "../runs/static/format.js";

const EVERY_MILLISECONDS = 2000;
const TAIL = 200000; // Bytes of a long log that are shown at first.
const MOST_LETTERS = 2000000;
const LOOKS_AFTER_END = 4; // The server looks for new runs every five seconds.

export const STATES = {
  queued: { text: "queued", color: "--grey", shape: "ring" },
  running: { text: "running", color: "--blue" },
  succeeded: { text: "succeeded", color: "--green" },
  failed: { text: "failed", color: "--red", shape: "square" },
  stopped: { text: "stopped", color: "--orange", shape: "ring" },
};

export function secondsOf(job) {
  return job.began ? (job.ended ?? Date.now() / 1000) - job.began : null;
}

const hasEnded = (job) => Boolean(job.ended);

export class JobPage {
  constructor(id, onState) {
    this.path = `api/jobs/${encodeURIComponent(id)}`;
    this.onState = onState;
    this.title = el("h1", {}, id);
    this.line = el("div", { class: "line" });
    this.said = el("p", { class: "muted", role: "status" });
    this.stop = el("button", { type: "button", class: "danger", hidden: true, onclick: () => this.askToStop() }, "Stop the job");
    this.trouble = el("div", { class: "notice error", role: "alert", hidden: true });
    this.runs = el("ul", { class: "runs" });
    this.training = section("Runs", "what the job has trained", null, card(this.runs));
    this.facts = el("dl", { class: "facts" });
    this.output = el("pre", { class: "output", tabindex: "0", "aria-label": "Log" });
    this.cut = el("p", { class: "muted", hidden: true });
    this.node = el("div", { class: "stack" },
      el("div", { class: "title" }, el("div", {}, this.title, this.line, this.said), el("div", { class: "actions" }, this.stop)),
      this.trouble, this.training,
      section("Log", null, null, this.cut, card(this.output)),
      section("Settings", null, null, card(this.facts)));
    this.training.hidden = true;
    this.letters = 0;
    this.isClosed = false;
    this.end = follow({ ask: `${this.path}/logs`, stream: `${this.path}/logs/stream`, parameters: { tail: TAIL } },
      (answer) => this.take(answer), onState);
    this.timer = 0;
    this.looks = LOOKS_AFTER_END;
    this.look();
  }

  // The runs of the job, which appear while it runs.
  async look() {
    try {
      const { job, runs } = await get(this.path);
      if (this.isClosed) return;
      if (hasEnded(job)) this.looks -= 1;
      this.describe(job);
      this.list(runs);
    } catch (error) {
      if (error.status < 500) return; // What follows the log tells it.
    }
    if (!this.isClosed && this.looks > 0) this.timer = setTimeout(() => this.look(), EVERY_MILLISECONDS);
  }

  take({ start, text, job }) {
    const { output } = this;
    const isAtEnd = output.scrollHeight - output.scrollTop - output.clientHeight < 40;
    if (text) {
      if (this.letters === 0 && start > 0) this.leftOut(job);
      output.append(text);
      this.letters += text.length;
      while (this.letters > MOST_LETTERS && output.childNodes.length > 1) {
        this.letters -= output.firstChild.length;
        output.firstChild.remove();
        this.leftOut(job);
      }
    }
    if (isAtEnd) output.scrollTop = output.scrollHeight;
    this.describe(job);
    // Nothing more comes; the server ends the stream as well.
    if (hasEnded(job) && !text) this.end();
  }

  leftOut(job) {
    this.cut.hidden = false;
    setText(this.cut, `The beginning is left out here. “distkeras logs ${job.id}” prints all of it.`);
  }

  describe(job) {
    const key = JSON.stringify(job);
    if (key === this.key) return;
    this.key = key;
    setText(this.title, job.name);
    const parts = [
      pill(STATES[job.state]),
      job.began ? `began ${date(job.began)}` : `submitted ${date(job.submitted)}`,
      hasEnded(job) && job.began ? `took ${duration(secondsOf(job))}` : null,
      job.exit_code === null ? null : `exit code ${job.exit_code}`,
    ].filter(Boolean);
    replace(this.line, parts.map((part) => (part instanceof Node ? part : el("span", {}, part))));
    this.node.dataset.state = job.state;
    this.stop.hidden = hasEnded(job);
    this.stop.disabled = Boolean(job.stop_asked);
    setText(this.stop, job.stop_asked ? "Stop asked for" : "Stop the job");
    this.trouble.hidden = !job.detail;
    setText(this.trouble, job.detail);
    const facts = [
      ["id", job.id], ["command", [job.entry, ...job.arguments].join(" ")], ["submitted", date(job.submitted)],
      ["project", `${bytes(job.num_bytes)}, SHA-256 ${job.sha256}`],
    ];
    replace(this.facts, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  list(runs) {
    const key = JSON.stringify(runs);
    if (key === this.shownRuns) return;
    this.shownRuns = key;
    this.training.hidden = runs.length === 0;
    replace(this.runs, runs.map((run) => el("li", {},
      el("a", { href: `runs/#run=${encodeURIComponent(run.id)}` }, run.name),
      run.error ? ` ${run.error}` : ` ${run.status}, ${run.rule ?? ""} ${run.workers ? `with ${count(run.workers)} workers` : ""}`)));
  }

  async askToStop() {
    if (!confirm("End this job? A training keeps its model so far; what does not end by itself is killed.")) return;
    try {
      this.describe(await post(`${this.path}/stop`, {}));
    } catch (error) {
      setText(this.said, error.message);
    }
  }

  close() {
    this.isClosed = true;
    this.end();
    clearTimeout(this.timer);
  }
}
