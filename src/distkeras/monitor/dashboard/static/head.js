// The head of a run: its name, how it stands, what can be asked of it, and the numbers that matter most.

import { post } from "./api.js";
import { el, pill, replace, setText } from "./dom.js";
import { count, date, duration, metric, short } from "./format.js";
import { STATUS } from "./palette.js";

const SILENT_SECONDS = 60;

export class Head {
  constructor(id, name) {
    this.id = id;
    this.title = el("h1", {}, name);
    this.line = el("div", { class: "line" });
    this.actions = el("div", { class: "actions" });
    this.said = el("p", { class: "muted", role: "status" });
    this.numbers = el("dl", { class: "numbers" });
    this.progress = el("span", {});
    this.track = el("div", {
      class: "progress", role: "progressbar", "aria-label": "Rows trained", "aria-valuemin": "0", "aria-valuemax": "100",
    }, this.progress);
    this.troubles = el("div", { class: "stack" });
    this.node = el("div", { class: "stack" },
      el("div", { class: "title" }, el("div", {}, this.title, this.line, this.said), this.actions),
      this.troubles,
      el("div", { class: "card" }, this.numbers));
    this.figures = {};
    for (const key of ["epoch", "rate", "loss", "best", "left"]) {
      const [label, value, note] = [el("dt"), el("dd"), el("p")];
      this.figures[key] = { label, value, note };
      this.numbers.append(el("div", { class: "big", "data-figure": key }, label, value, note));
    }
    this.numbers.append(this.track);
  }

  update(data) {
    const { about, head } = data;
    this.describe(about);
    this.warn(data);
    if (about.error) return;
    this.offer(data);
    this.figure("epoch", "Epoch", count(shownEpoch(head)), head.epochs ? `of ${count(head.epochs)}` : null,
      `${short(head.samples)} rows`);
    const virtual = about.simulation ? "virtual " : "";
    const runs = about.status === "running";
    const rate = runs ? head.rate : head.samples / head.seconds;
    this.figure("rate", `Rows per ${virtual}second`, short(rate), null, runs ? "over the last seconds" : "on average");
    const loss = head.metrics.loss ?? head.logs.loss;
    this.figure("loss", "Loss", metric(loss), null, "of the newest windows");
    const [name, value] = judged(head.logs);
    this.figure("best", name ?? "Metric", metric(value), null, data.epochs.length ? `after epoch ${data.epochs.at(-1).epoch + 1}` : "after the first epoch");
    if (about.status === "running") this.figure("left", "Time left", duration(head.left), null, `${duration(head.seconds)} so far`);
    else this.figure("left", `${about.simulation ? "Virtual time" : "Time"}`, duration(about.result?.seconds ?? head.seconds), null, ended(about));
    const part = head.total ? Math.min(1, head.samples / head.total) : about.status === "finished" ? 1 : 0;
    this.progress.style.width = `${100 * part}%`;
    this.track.setAttribute("aria-valuenow", String(Math.round(100 * part)));
  }

  figure(key, label, value, unit, note) {
    const figure = this.figures[key];
    setText(figure.label, label);
    setText(figure.note, note ?? "");
    if (figure.shown !== `${value} ${unit}`) replace(figure.value, value, unit ? [" ", el("small", {}, unit)] : null);
    figure.shown = `${value} ${unit}`;
  }

  describe(about) {
    const status = STATUS[about.error ? "unreadable" : about.status];
    const parts = [
      pill(status),
      about.rule ? `${about.rule}` : null,
      about.workers ? `${count(about.workers)} ${about.workers === 1 ? "worker" : "workers"}` : null,
      about.backend,
      about.simulation ? "simulated, in virtual seconds" : null,
      about.began ? `began ${date(about.began)}` : null,
      about.spark?.ui ? el("a", { href: safe(about.spark.ui), rel: "noreferrer" }, "Spark's UI") : null,
    ].filter(Boolean);
    const key = JSON.stringify([about.error, about.status, about.rule, about.workers, about.began]);
    if (key !== this.described) replace(this.line, parts.map((part) => (part instanceof Node ? part : el("span", {}, part))));
    this.described = key;
  }

  warn({ about, head }) {
    const texts = [about.error, about.trouble].filter(Boolean).map((text) => ["error", text]);
    if (about.status === "running" && head?.silent > SILENT_SECONDS) {
      texts.push(["", `This run has written nothing for ${duration(head.silent)}. It waits for executors, or its driver has died: ${about.holder}.`]);
    }
    const key = JSON.stringify(texts);
    if (key !== this.warned) replace(this.troubles, texts.map(([level, text]) => el("div", { class: `notice ${level}`, role: "alert" }, text)));
    this.warned = key;
  }

  offer({ about, asked }) {
    const key = JSON.stringify([about.status, asked]);
    if (key === this.offered) return;
    this.offered = key;
    if (about.status !== "running" || about.simulation) {
      replace(this.actions);
      return;
    }
    const button = (what, text, pending, kind) => el("button", {
      type: "button", class: kind, "data-request": what, disabled: asked.includes(what), onclick: () => this.ask(what),
    }, asked.includes(what) ? pending : text);
    replace(this.actions,
      button("checkpoint", "Save a checkpoint", "Checkpoint requested", ""),
      button("stop", "Stop the training", "Stop requested", "danger"));
  }

  async ask(what) {
    if (what === "stop" && !confirm("End this training? Its model so far is returned to the driver.")) return;
    try {
      await post("api/request", { id: this.id, what });
      setText(this.said, what === "stop" ? "The driver will end the training within seconds." : "The driver will save a checkpoint within seconds.");
    } catch (error) {
      setText(this.said, error.message);
    }
  }
}

// The epoch that is trained, from 1.
function shownEpoch(head) {
  return head.epochs ? Math.min(head.epoch + 1, head.epochs) : head.epoch;
}

// The value of the logs by which people judge a model.
function judged(logs) {
  const names = Object.keys(logs);
  const found = names.find((name) => name.startsWith("val_") && name !== "val_loss") ?? names.find((name) => name === "val_loss")
    ?? names.find((name) => name !== "loss");
  return [found, logs[found]];
}

function ended(about) {
  const reasons = {
    finished: "all epochs trained", callback: "ended by a callback", target: "target reached", time: "time was up",
    stop: "stopped", interrupt: "interrupted by Ctrl-C", "not finite": "loss not finite", diverged: "diverged",
  };
  const reason = about.result?.reason;
  return reason ? reasons[reason] ?? reason : about.status;
}

// A link may lead to a page, and run no script.
export function safe(address) {
  return /^https?:\/\//.test(address) ? address : null;
}


