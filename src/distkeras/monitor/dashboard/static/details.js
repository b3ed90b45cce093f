// What is read now and then: epochs, the log of events, the settings.

import { card, el, replace, section } from "./dom.js";
import { clock, count, date, metric } from "./format.js";
import { Table } from "./table.js";

const LEVELS = {
  error: { mark: "--red", sign: "✕" },
  warning: { mark: "--orange", sign: "!" },
  good: { mark: "--green", sign: "✓" },
  note: { mark: "--grey", sign: "·" },
};
const MOST_LINES = 300;

export class Epochs {
  constructor() {
    this.table = new Table("Epochs", [], { sort: "epoch", descending: true, most: 10, rowOf: (row) => ({ "data-epoch": String(row.epoch) }) });
    this.node = section("Epochs of the center", "logs as the history has them", null, card(this.table.node));
  }

  update(data) {
    this.node.hidden = data.epochs.length === 0;
    const key = `${data.epochs.length} ${data.epochs.at(-1)?.t}`;
    if (key === this.key) return;
    this.key = key;
    const names = [...new Set(data.epochs.flatMap((entry) => Object.keys(entry.logs)))];
    this.table.setColumns([
      { name: "epoch", title: "Epoch", of: (row) => row.epoch, cell: (row) => String(row.epoch + 1) },
      { name: "t", title: "Ended at", of: (row) => row.t, cell: (row) => clock(row.t), number: true },
      { name: "samples", title: "Rows", of: (row) => row.samples, cell: (row) => count(row.samples), number: true },
      ...names.map((name) => ({
        name: `log ${name}`, title: name, number: true, of: (row) => row.logs[name],
        cell: (row) => el("span", { "data-log": name, "data-value": String(row.logs[name]), title: String(row.logs[name]) }, metric(row.logs[name])),
      })),
    ]);
    this.table.update(data.epochs);
  }
}

export class Log {
  constructor() {
    this.word = "";
    this.onlyTroubles = false;
    this.list = el("ol", { class: "log", tabindex: "0", "aria-label": "Events, the newest first" });
    const troubles = el("button", {
      type: "button", "aria-pressed": "false",
      onclick: () => {
        this.onlyTroubles = !this.onlyTroubles;
        troubles.setAttribute("aria-pressed", String(this.onlyTroubles));
        this.draw(true);
      },
    }, "Troubles only");
    const input = el("input", {
      type: "search", placeholder: "Search the log", "aria-label": "Search the log",
      oninput: () => {
        this.word = input.value.toLowerCase();
        this.draw(true);
      },
    });
    this.node = section("Log", null, [el("div", { class: "chips" }, troubles, input)], card(this.list));
  }

  update(data) {
    this.lines = data.log;
    this.draw();
  }

  draw(anew = false) {
    const key = this.lines.at(-1)?.n ?? 0;
    if (key === this.key && !anew) return;
    this.key = key;
    const fits = (line) => (!this.onlyTroubles || ["error", "warning"].includes(line.level))
      && `${line.kind} ${line.text}`.toLowerCase().includes(this.word);
    const shown = this.lines.filter(fits).slice(-MOST_LINES).reverse();
    replace(this.list, shown.length ? shown.map(lineOf) : el("li", {}, el("time"), el("span"), "Nothing here"));
  }
}

function lineOf(line) {
  const { mark, sign } = LEVELS[line.level] ?? LEVELS.note;
  const text = line.detail
    ? el("details", {}, el("summary", {}, line.text), el("pre", {}, line.detail))
    : el("span", {}, line.text);
  return el("li", { "data-kind": line.kind },
    el("time", {}, clock(line.t)), el("span", { class: "level", mark: `var(${mark})`, title: line.level }, sign), text);
}

export class Settings {
  constructor() {
    this.rest = el("div", { class: "stack" });
    this.node = section("Settings", null, null, this.rest);
  }

  update({ about }) {
    const key = JSON.stringify([about.settings, about.sessions, about.result]);
    if (key === this.key) return;
    this.key = key;
    const sessions = about.sessions.map((session, number) => {
      const { facts, versions, ...own } = session;
      const named = Object.entries(versions ?? {}).map(([name, version]) => [`version of ${name}`, version]);
      const began = [["began", date(own.began)], ["machine", `${own.host}, process ${own.pid}`], ["began from", own.source]];
      const title = about.sessions.length > 1 ? `Driver ${number + 1} of ${about.sessions.length}` : "Driver";
      return [title, [...began, ...Object.entries(facts), ...named]];
    });
    const groups = [["Training", Object.entries(about.settings)], ...sessions.reverse()];
    if (about.result) groups.unshift(["Result", Object.entries(about.result).map(([name, value]) => [name, plain(value)])]);
    replace(this.rest, groups.map(([title, facts], place) =>
      el("details", { class: "card", open: place === 0 }, el("summary", {}, title), list(facts))));
  }
}

function list(facts) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, plain(value))]));
}

function plain(value) {
  if (typeof value === "number") return Number.isInteger(value) ? count(value) : String(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}
