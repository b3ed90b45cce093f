"""What `make demo` takes with two workers beside one, and what each trainer reaches. JSON out.

python benchmarks/demo_runs.py [--runs 9] [--out FILE]

Each run of the demo is a process of its own, as `make demo` is. The first training is that of one worker.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import recording

FIGURES = ("name", "workers", "accuracy", "seconds", "startup", "rows_per_second", "commits", "staleness")
LIMIT = 1800.0
"""Seconds that a process may take."""


def train(every: bool) -> None:
    """Run the demo's trainings in this process, and print their figures."""
    sys.path.insert(0, str(recording.ROOT / "examples"))
    import demo

    outcomes = demo.train_all(demo.ALL if every else demo.COMPARED)
    print(json.dumps([{name: getattr(outcome, name) for name in FIGURES} for outcome in outcomes]))


def measured(every: bool) -> list[dict[str, Any]]:
    """Run the demo's trainings in a new process; return their figures."""
    command = [sys.executable, __file__, "--part", "all" if every else "compared"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT)
    figures: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Run the demo as often as asked for, then all trainers once; or be one of these processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=9, help="of the two trainings that are compared")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", choices=["compared", "all"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        train(options.part == "all")
        return
    record = recording.begin(__file__)
    runs: list[list[dict[str, Any]]] = []
    for number in range(options.runs):
        runs.append(measured(every=False))
        one, two = (outcome["seconds"] for outcome in runs[-1])
        print(f"run {number + 1}: {one:.1f} s and {two:.1f} s, {two / one:.2f}", flush=True)
    ratios = [two["seconds"] / one["seconds"] for one, two in runs]
    found = {"runs": runs, "two_over_one": statistics.median(ratios), "every": measured(every=True)}
    print(f"Wrote {record.write(found, options.out)}.")


if __name__ == "__main__":
    main()
