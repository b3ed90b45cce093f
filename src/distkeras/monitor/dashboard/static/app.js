// Shows what the address asks for, after its #: a run, a comparison, or all runs.

import { get } from "./api.js";
import { ComparePage, shortName } from "./compare.js";
import { Frame } from "./frame.js";
import { RunPage } from "./run.js";
import { RunsPage } from "./runs.js";

async function route(frame, wanted) {
  const compared = wanted.getAll("compare");
  const run = wanted.get("run");
  if (compared.length > 0) frame.show(new ComparePage(compared, frame.tell), ["Comparison"]);
  else if (run) frame.show(new RunPage(run, shortName(run, [run]), frame.tell), [shortName(run, [run])]);
  else await showFirst(frame);
}

// A folder with one run opens at once.
async function showFirst(frame) {
  const own = frame.turn;
  try {
    const { runs } = await get("api/runs");
    if (own !== frame.turn) return; // Meanwhile the reader has gone elsewhere.
    if (runs.length === 1 && location.hash.replace("#", "") === "" && !frame.visited) {
      frame.visited = true;
      location.replace(`#run=${encodeURIComponent(runs[0].id)}`);
      return;
    }
  } catch (error) {
    if (own !== frame.turn) return;
    if (error.status < 500) {
      frame.tell("refused", error);
      return;
    }
  }
  frame.show(new RunsPage(frame.tell), []);
}

new Frame("Distributed Keras", "All runs", route);
