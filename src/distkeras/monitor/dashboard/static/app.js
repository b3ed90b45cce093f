// Shows what the part of the address behind the # names: a run, a comparison, or all runs.

import { get, takeToken } from "./api.js";
import { ComparePage, shortName } from "./compare.js";
import { el, replace, setText } from "./dom.js";
import { themeSwitch } from "./palette.js";
import { RunPage } from "./run.js";
import { RunsPage } from "./runs.js";

const main = document.getElementById("main");
const crumbs = document.getElementById("crumbs");
const connection = document.getElementById("connection");
let shown = null;

const STATES = {
  live: "Live",
  polling: "Live, by asking",
  lost: "No connection; trying again",
  refused: "Refused",
};

function tell(state, error) {
  connection.dataset.state = state;
  setText(connection, STATES[state]);
  if (state !== "refused") return;
  shown?.close();
  shown = null;
  replace(main, error.status === 401 ? askForToken() : el("div", { class: "notice error", role: "alert" }, error.message, " ", el("a", { href: "#" }, "All runs")));
}

function askForToken() {
  const input = el("input", { type: "search", "aria-label": "Token", autocomplete: "off", name: "token" });
  const open = (event) => {
    event.preventDefault();
    takeToken(new URLSearchParams({ token: input.value.trim() }));
    route();
  };
  return el("form", { class: "notice", onsubmit: open },
    el("p", {}, "This page needs its token. Open the link that was printed where the page was started, or put in what follows “token=” there."),
    el("div", { class: "token" }, input, el("button", { class: "primary" }, "Open")));
}

function parameters() {
  return new URLSearchParams(location.hash.replace(/^#/, ""));
}

async function route() {
  turn += 1;
  const wanted = parameters();
  if (takeToken(wanted)) {
    // Kept for this tab; out of the address, so that nobody reads or shares it by accident.
    wanted.delete("token");
    history.replaceState(null, "", `#${wanted}`);
  }
  shown?.close();
  shown = null;
  const compared = wanted.getAll("compare");
  const run = wanted.get("run");
  if (compared.length > 0) show(new ComparePage(compared, tell), ["Comparison"]);
  else if (run) show(new RunPage(run, shortName(run, [run]), tell), [shortName(run, [run])]);
  else await showFirst();
}
let turn = 0;

// A folder with one run opens at once.
async function showFirst() {
  const own = turn;
  try {
    const { runs } = await get("api/runs");
    if (own !== turn) return; // Meanwhile the reader has gone elsewhere.
    if (runs.length === 1 && location.hash.replace("#", "") === "" && !visited) {
      visited = true;
      location.replace(`#run=${encodeURIComponent(runs[0].id)}`);
      return;
    }
  } catch (error) {
    if (own !== turn) return;
    if (error.status < 500) {
      tell("refused", error);
      return;
    }
  }
  show(new RunsPage(tell), []);
}
let visited = false;

function show(page, names) {
  visited = true;
  shown = page;
  replace(main, page.node);
  replace(crumbs, names.map((name) => `/ ${name}`));
  document.title = [...names, "Distributed Keras"].join(" · ");
}

document.getElementById("skip").addEventListener("click", () => main.focus());
document.getElementById("home").addEventListener("click", (event) => {
  event.preventDefault();
  visited = true;
  location.hash = "";
});
themeSwitch(document.getElementById("theme"));
window.addEventListener("hashchange", route);
route();
