"""Test accuracy on MNIST of every rule, tuned on one grid, over workers, machines and data; in the simulator.

    python benchmarks/convergence.py [--quick] [--jobs 2] [--hours 4] [--stage tune|chosen|target|draw]
        [--plan] [--json FILE] [--figures FOLDER]

An MLP 784-64-10 with ReLU. Each run trains the same number of rows in all, however many workers share them.

1. tune: every rule, synchronous ones too, on the same grid of learning rate, batch and window, one seed.
2. chosen: each rule at its best point, three seeds, with 2 to 256 workers; then on unequal machines, then
   with skewed labels.
3. target: an asynchronous rule for longer and with few rows in flight, beside one worker.

The grid and every run stand in the file of results, one line each. Runs that are there are not repeated, so
that the script can be stopped at any time, and started again: delete the file to start anew. After `--hours`
no more runs begin. Tables and figures show what is there.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

from grid import guidance
from grid.cases import QUICK, Case, Grid
from grid.figures import draw_all
from grid.running import ROOT, read, run_all
from grid.tables import all_tables

STAGES = ("tune", "chosen", "target", "draw")


def make_runs(grid: Grid, options: argparse.Namespace, path: Path) -> None:
    """Make the runs of all stages from `--stage` on, until the time is over."""
    deadline = time.monotonic() + 3600 * options.hours
    for stage in STAGES[STAGES.index(options.stage) : -1]:
        cases = list(stage_of(grid, stage, path))
        done = {outcome.case for outcome in read(path)}
        print(f"{stage}: {len(set(cases))} runs, {len(set(cases) - done)} to make", flush=True)
        if options.plan:
            continue
        if not run_all(cases, grid, options.jobs, path, deadline):
            print(f"The time is over. Start the script again to go on with: {stage}")
            return


def stage_of(grid: Grid, stage: str, path: Path) -> Iterator[Case]:
    """Return the cases of a stage, which depend on the outcomes of earlier ones."""
    if stage == "tune":
        return grid.tuning()
    return grid.chosen(read(path)) if stage == "chosen" else grid.target()


def main() -> None:
    """Run, print the tables, and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rules, workers and rows; one seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--hours", type=float, default=math.inf, help="begin no more runs after so long")
    parser.add_argument("--stage", choices=STAGES, default="tune", help="begin with this one")
    parser.add_argument("--plan", action="store_true", help="say how many runs there are, and make none")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/convergence.jsonl")
    parser.add_argument("--figures", type=Path, help="default: docs/figures")
    parser.add_argument(
        "--guidance",
        type=Path,
        default=ROOT / "src" / "distkeras" / "guidance" / "measured.json",
        help="where to write what `distkeras.recommend` knows",
    )
    options = parser.parse_args()
    grid, name = (QUICK, "convergence-quick") if options.quick else (Grid(), "convergence")
    path = options.json or ROOT / "benchmarks" / "results" / f"{name}.jsonl"
    make_runs(grid, options, path)
    outcomes = read(path)
    if outcomes and not options.plan:
        print(all_tables(outcomes, grid))
        if not options.quick:
            guidance.write(outcomes, grid, options.guidance)
        for figure in draw_all(outcomes, grid, options.figures or ROOT / "docs" / "figures"):
            print(figure)


if __name__ == "__main__":
    main()
