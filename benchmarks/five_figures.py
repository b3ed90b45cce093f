"""Five figures of five papers, simulated in a few minutes: those of docs/tutorials/five_figures.md.

    python benchmarks/five_figures.py [--only NAME ...] [--json FILE] [--figures FOLDER]

- momentum: asynchrony begets momentum (Mitliagkas et al. 2016)
- thesis: accuracy on MNIST over workers and windows (Hermans 2017)
- unequal: Delayed Nesterov and DyLU on unequal machines (Liu et al. 2024)
- bandwidth: the bandwidth that Streaming DiLoCo needs (Douillard et al. 2025)
- goodput: Decoupled DiLoCo where learners fail (Douillard et al. 2026)

Each prints a table with the paper's numbers, and draws a figure. The numbers of figures that are not made
again stay in the JSON file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAMES = ("momentum", "thesis", "unequal", "bandwidth", "goodput")


def main() -> None:
    """Make the figures that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / "five_figures.json")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "figures")
    options = parser.parse_args()
    kept: dict[str, Any] = json.loads(options.json.read_text()) if options.json.exists() else {}
    for name in options.only:
        paper = importlib.import_module(f"papers.{name}")
        began = time.process_time()
        kept[name] = paper.compute()
        seconds = time.process_time() - began
        print(
            f"{paper.__doc__}\n\n{paper.table(kept[name])}\n\n{seconds:.0f} s of processor time\n", flush=True
        )
        paper.draw(kept[name], options.figures / f"five-{name}.png")
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
