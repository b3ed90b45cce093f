// The frame around what is shown: where the reader is, the connection, the token. Each page of a server has it.

import { takeToken } from "./api.js";
import { el, replace, setText } from "./dom.js";
import { themeSwitch } from "./palette.js";

const STATES = {
  live: "Live",
  polling: "Live, by polling",
  lost: "No connection; trying again",
  refused: "Refused",
};

// `title` is the name of the page, `all` the words of the link to its first view; `route` shows what the
// address asks for, given its parameters.
export class Frame {
  constructor(title, all, route) {
    Object.assign(this, { title, all, route });
    this.main = document.getElementById("main");
    this.crumbs = document.getElementById("crumbs");
    this.connection = document.getElementById("connection");
    this.shown = null;
    this.turn = 0;
    this.visited = false;
    this.tell = this.tell.bind(this);
    document.getElementById("skip").addEventListener("click", () => this.main.focus());
    document.getElementById("home").addEventListener("click", (event) => {
      event.preventDefault();
      this.visited = true;
      location.hash = "";
    });
    themeSwitch(document.getElementById("theme"));
    window.addEventListener("hashchange", () => this.go());
    this.go();
  }

  go() {
    this.turn += 1;
    const wanted = new URLSearchParams(location.hash.replace(/^#/, ""));
    if (takeToken(wanted)) {
      // Kept for this tab; out of the address, so that nobody reads or shares it by accident.
      wanted.delete("token");
      history.replaceState(null, "", `#${wanted}`);
    }
    this.leave();
    this.route(this, wanted);
  }

  leave() {
    this.shown?.close();
    this.shown = null;
  }

  show(view, names) {
    this.visited = true;
    this.shown = view;
    replace(this.main, view.node);
    replace(this.crumbs, names.map((name) => `/ ${name}`));
    document.title = [...names, this.title].join(" · ");
  }

  tell(state, error) {
    this.connection.dataset.state = state;
    setText(this.connection, STATES[state]);
    if (state !== "refused") return;
    this.leave();
    replace(this.main, error.status === 401
      ? this.askForToken()
      : el("div", { class: "notice error", role: "alert" }, error.message, " ", el("a", { href: "#" }, this.all)));
  }

  askForToken() {
    const input = el("input", { type: "search", "aria-label": "Token", autocomplete: "off", name: "token" });
    const open = (event) => {
      event.preventDefault();
      takeToken(new URLSearchParams({ token: input.value.trim() }));
      this.go();
    };
    return el("form", { class: "notice", onsubmit: open },
      el("p", {}, document.body.dataset.token),
      el("div", { class: "token" }, input, el("button", { class: "primary" }, "Open")));
  }
}
