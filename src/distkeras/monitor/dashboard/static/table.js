// A table that sorts by its columns, also by keys, and keeps what the reader has chosen.

import { el, replace } from "./dom.js";

// A column is {name, title, of, cell?, number?}: `of` gives the value to sort by, `cell` what is shown.
export class Table {
  constructor(label, columns, { sort = null, descending = false, most = 50, rowOf = null } = {}) {
    Object.assign(this, { columns, sort, descending, most, rowOf });
    this.rows = [];
    this.isWhole = false;
    this.headings = new Map();
    this.body = el("tbody");
    this.more = el("button", { type: "button", class: "quiet", hidden: true, onclick: () => this.showAll() });
    this.head = el("tr");
    this.table = el("table", { "aria-label": label }, el("thead", {}, this.head), this.body);
    this.node = el("div", {}, el("div", { class: "scroll" }, this.table), this.more);
    this.setColumns(columns);
  }

  setColumns(columns) {
    const names = columns.map((column) => column.name).join("\n");
    this.columns = columns;
    if (names === this.names) return;
    this.names = names;
    replace(this.head, columns.map((column) => this.heading(column)));
  }

  heading(column) {
    const node = el("th", { scope: "col", class: column.number ? "number" : null });
    if (column.of) node.append(el("button", { type: "button", onclick: () => this.sortBy(column) }, column.title));
    else node.append(column.title);
    this.headings.set(column.name, node);
    return node;
  }

  sortBy(column) {
    this.descending = this.sort === column.name ? !this.descending : Boolean(column.number);
    this.sort = column.name;
    this.draw();
  }

  showAll() {
    this.isWhole = true;
    this.draw();
  }

  update(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    for (const [name, node] of this.headings) {
      if (name === this.sort) node.setAttribute("aria-sort", this.descending ? "descending" : "ascending");
      else node.removeAttribute("aria-sort");
    }
    const rows = this.sorted();
    const shown = this.isWhole ? rows : rows.slice(0, this.most);
    this.more.hidden = shown.length === rows.length;
    this.more.textContent = `Show all ${rows.length}`;
    const focused = document.activeElement?.closest?.("[data-key]")?.dataset.key;
    replace(this.body, shown.map((row) => this.line(row)));
    if (focused && this.body.contains(document.activeElement) === false) this.focus(focused);
  }

  // The focus of the keyboard outlives a drawing.
  focus(key) {
    for (const node of this.body.querySelectorAll("[data-key]")) {
      if (node.dataset.key === key) node.focus({ preventScroll: true });
    }
  }

  line(row) {
    const cells = this.columns.map((column) => {
      const shown = column.cell ? column.cell(row) : column.of(row);
      return el("td", { class: [column.number ? "number" : "", column.class ?? ""].join(" ").trim() || null }, shown ?? "–");
    });
    return el("tr", this.rowOf ? this.rowOf(row) : {}, cells);
  }

  sorted() {
    const column = this.columns.find((each) => each.name === this.sort);
    if (!column) return this.rows;
    const sign = this.descending ? -1 : 1;
    return [...this.rows].sort((one, other) => sign * compare(column.of(one), column.of(other), sign));
  }
}

// What has no value comes last, whichever way is sorted.
function compare(one, other, sign) {
  const missing = (value) => value === null || value === undefined || Number.isNaN(value);
  if (missing(one) || missing(other)) return sign * (Number(missing(one)) - Number(missing(other)));
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}
