// The table of workers: who is in trouble first, and where each one's time goes.

import { card, el, pill, replace, section, setText } from "./dom.js";
import { bytes, count, percent, short } from "./format.js";
import { Lanes } from "./lanes.js";
import { SHARES, STATES } from "./palette.js";
import { Table } from "./table.js";

export class Workers {
  constructor() {
    this.state = null;
    this.word = "";
    this.lanes = new Lanes((index) => this.search(`worker ${index}`));
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Show workers of one state" });
    this.input = el("input", {
      type: "search", placeholder: "Worker, host or device", "aria-label": "Search workers",
      oninput: () => this.search(this.input.value),
    });
    this.table = new Table("Workers", COLUMNS, { sort: "state", most: 10 });
    this.keys = el("div", { class: "keys" }, Object.values(SHARES).map((share) => el("span", { mark: `var(${share.color})` }, share.text)));
    this.node = section("Is anyone in trouble?", null, this.input, card(this.lanes.node), this.chips, card(this.keys, this.table.node));
  }

  search(word) {
    this.word = word;
    if (this.input.value !== word) {
      this.input.value = word;
      this.table.node.scrollIntoView({ block: "nearest" });
    }
    this.draw();
  }

  update(data) {
    this.rows = rowsOf(data.workers);
    this.lanes.update(data);
    this.draw();
  }

  draw() {
    const counts = new Map();
    for (const row of this.rows) counts.set(row.state, (counts.get(row.state) ?? 0) + 1);
    const states = [...counts.keys()].sort((one, other) => rank(one) - rank(other));
    const key = JSON.stringify([...counts, this.state]);
    if (key !== this.key) {
      this.key = key;
      replace(this.chips, states.map((state) => this.chip(state, counts.get(state))));
    }
    const wanted = this.word.trim().toLowerCase();
    const fits = (row) => (!this.state || row.state === this.state) && (!wanted || matches(row, wanted));
    this.table.update(this.rows.filter(fits));
  }

  chip(state, number) {
    const node = el("button", {
      type: "button", mark: `var(${STATES[state]?.color ?? "--grey"})`, "aria-pressed": String(this.state === state),
      "data-state": state,
      onclick: () => {
        this.state = this.state === state ? null : state;
        this.draw();
      },
    });
    setText(node, `${number} ${STATES[state]?.text ?? state}`);
    return node;
  }

  close() {
    this.lanes.close();
  }
}

function matches(row, wanted) {
  const named = /^worker (\d+)$/.exec(wanted);
  if (named) return row.index === Number(named[1]);
  return [`worker ${row.index}`, row.host, row.device, row.executor].join(" ").toLowerCase().includes(wanted);
}

function rowsOf(workers) {
  return workers.index.map((_, place) => {
    const row = { recent: {} };
    for (const [name, column] of Object.entries(workers)) if (name !== "recent") row[name] = column[place];
    for (const [name, column] of Object.entries(workers.recent ?? {})) row.recent[name] = column[place];
    // Who has ended has no last seconds: then all of its time counts.
    const own = total(row.recent) > 0 ? row.recent : row;
    row.spent = Object.fromEntries(Object.keys(SHARES).map((name) => [name, own[name] ?? 0]));
    row.whole = total(row.spent);
    return row;
  });
}

function total(row) {
  return Object.keys(SHARES).reduce((sum, name) => sum + (row[name] ?? 0), 0);
}

const rank = (state) => STATES[state]?.rank ?? 3;

function bar(row) {
  if (!row.whole) return null;
  const words = Object.entries(SHARES).map(([name, share]) => `${share.text} ${percent(row.spent[name] / row.whole)}`).join(", ");
  const parts = Object.entries(SHARES).map(([name, share]) =>
    el("span", { mark: `var(${share.color})`, width: `${(100 * row.spent[name]) / row.whole}%` }));
  return el("div", { class: "bar", role: "img", "aria-label": words, title: words }, parts);
}

function about(row) {
  const where = [row.host, row.device, row.cores ? `${row.cores} ${row.cores === 1 ? "core" : "cores"}` : null].filter(Boolean);
  return where.length ? el("span", { class: "where" }, where.join(" · ")) : null;
}

const COLUMNS = [
  { name: "worker", title: "Worker", of: (row) => row.index },
  {
    name: "state", title: "State",
    // Who is in trouble first, then who is slow.
    of: (row) => rank(row.state) * 1e12 + (row.recent.rate ?? 0),
    cell: (row) => pill(STATES[row.state] ?? { text: row.state, color: "--grey" }),
  },
  { name: "attempt", title: "Attempt", of: (row) => row.attempt, cell: (row) => String(row.attempt + 1), number: true },
  { name: "problems", title: "Problems", of: (row) => row.problems, cell: (row) => (row.problems ? String(row.problems) : ""), number: true },
  { name: "where", title: "Where", of: (row) => row.host, cell: about },
  { name: "rows", title: "Rows", of: (row) => row.rows, cell: (row) => count(row.rows), number: true },
  { name: "rate", title: "Rows/s", of: (row) => row.recent.rate, cell: (row) => short(row.recent.rate), number: true },
  {
    name: "computing", title: "Computing", number: true,
    of: (row) => (row.whole ? row.spent.computing / row.whole : null),
    cell: (row) => percent(row.whole ? row.spent.computing / row.whole : null),
  },
  { name: "parts", title: "Where the time goes", cell: bar, class: "parts" },
  { name: "bytes", title: "Bytes", of: (row) => row.bytes_out + row.bytes_in, cell: (row) => bytes(row.bytes_out + row.bytes_in), number: true },
  { name: "resends", title: "Sent again", of: (row) => row.resends, cell: (row) => (row.resends ? count(row.resends) : ""), number: true },
];
