"""Perplexity of a small transformer on characters, over virtual time, tokens and bytes; in the simulator.

    python benchmarks/language.py [--quick] [--jobs 1] [--hours H] [--plan] [--json FILE] [--figure FILE]

A causal transformer of 2 layers, width 64 and context 64 learns the source of Python's standard library, by
eight workers with AdamW. Between two exchanges of the same weights a worker trains 10 minibatches of 2
sequences. A step takes a virtual second, and all weights are 2.5 seconds on their way in one direction.

1. tune: every method on four learning rates of its workers' optimizer, a short run each.
2. chosen: each method at its best rate, for longer; then on unequal machines; then with other seeds.

The file of results has one line for each run, after a first line with the plan, the release of Python and the
SHA-256 of the text: modules of other releases differ. Runs that are there are not repeated, so that the
script can be stopped at any time and started again: delete the file to start anew. After `--hours` no more
runs begin. The table and the figure show what is there.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict
from pathlib import Path

from characters.cases import BATCH_SIZE, QUICK, WINDOW, WORKERS, Plan
from characters.running import ROOT, TRANSFER_SECONDS, read, row_of
from characters.shown import draw, table
from characters.text import facts
from grid.kept import make_missing


def make_runs(plan: Plan, options: argparse.Namespace, path: Path) -> None:
    """Make the runs of both stages until the time is over."""
    deadline = time.monotonic() + 3600 * options.hours
    settings = {
        "plan": asdict(plan),
        "workers": WORKERS,
        "window": WINDOW,
        "batch_size": BATCH_SIZE,
        "transfer_seconds": TRANSFER_SECONDS,
        "text": facts(),
    }
    for stage in ("tune", "chosen"):
        outcomes = read(path)
        cases = list(plan.tuning() if stage == "tune" else plan.chosen(outcomes))
        done = {outcome.case for outcome in outcomes}
        print(f"{stage}: {len(cases)} runs, {len(set(cases) - done)} to make", flush=True)
        if not options.plan and not make_missing(
            cases, done, row_of, path=path, facts=settings, jobs=options.jobs, deadline=deadline
        ):
            print("The time is over. Start the script again to go on.")
            return


def main() -> None:
    """Run, print the table, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few methods and tokens; one seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no more runs after so long")
    parser.add_argument("--plan", action="store_true", help="say how many runs there are, and make none")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/language.jsonl")
    parser.add_argument("--figure", type=Path, help="default: docs/figures/language.png")
    options = parser.parse_args()
    plan, name = (QUICK, "language-quick") if options.quick else (Plan(), "language")
    path = options.json or ROOT / "benchmarks" / "results" / f"{name}.jsonl"
    make_runs(plan, options, path)
    outcomes = read(path)
    if outcomes and not options.plan:
        print(table(outcomes, plan))
        figure = options.figure or ROOT / "docs" / "figures" / f"{name}.png"
        if draw(outcomes, plan, figure):
            print(figure)


if __name__ == "__main__":
    main()
