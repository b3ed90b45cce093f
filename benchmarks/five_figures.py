"""Five figures of five papers, simulated in a few minutes: those of docs/tutorials/five_figures.md.

    python benchmarks/five_figures.py [--only NAME ...] [--results FOLDER] [--figures FOLDER]

- momentum: asynchrony begets momentum (Mitliagkas et al. 2016)
- thesis: accuracy on MNIST over workers and windows (Hermans 2017)
- unequal: Delayed Nesterov and DyLU on unequal machines (Liu et al. 2024)
- bandwidth: the bandwidth that Streaming DiLoCo needs (Douillard et al. 2025)
- goodput: Decoupled DiLoCo where learners fail (Douillard et al. 2026)

Each prints a table with the paper's numbers, draws a figure, and keeps its numbers in a file of its own.
"""

from __future__ import annotations

import argparse
import importlib
import time
from pathlib import Path

import recording

NAMES = ("momentum", "thesis", "unequal", "bandwidth", "goodput")


def main() -> None:
    """Make the figures that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--results", type=Path, default=recording.RESULTS)
    parser.add_argument("--figures", type=Path, default=recording.ROOT / "docs" / "figures")
    options = parser.parse_args()
    for name in options.only:
        run = recording.begin(f"five-{name}")
        paper = importlib.import_module(f"papers.{name}")
        began = time.process_time()
        found = paper.compute()
        cpu_seconds = round(time.process_time() - began, 1)
        print(f"{paper.__doc__}\n\n{paper.table(found)}\n\n{cpu_seconds} s of processor time\n", flush=True)
        paper.draw(found, options.figures / f"five-{name}.png")
        run.write({"cpu_seconds": cpu_seconds, "found": found}, options.results / f"five-{name}.json")


if __name__ == "__main__":
    main()
