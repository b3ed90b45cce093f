"""Decoupled DiLoCo, Douillard et al. 2026 (2604.21428): goodput where learners fail."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import goodput as benchmark

OPTIONS = argparse.Namespace(learners=64, hours=2.0, restart=60.0, seeds=1)
"""Fewer learners and one seed, for a laptop: `benchmarks/goodput.py` has a thousand."""


def compute() -> dict[str, Any]:
    """Return the runs of every scheme."""
    return {"runs": [row for scheme in benchmark.SCHEMES for row in benchmark.goodputs(scheme, OPTIONS)]}


def table(found: dict[str, Any]) -> str:
    """Return the goodput of each scheme over the failures of a chip in a year."""
    by_scheme: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in found["runs"]:
        by_scheme[row["scheme"]["name"]][row["factor"]].append(row["goodput"])
    lines = [
        "| scheme | " + " | ".join(f"{factor:g} a year" for factor in benchmark.FACTORS) + " |",
        "|---" * (1 + len(benchmark.FACTORS)) + "|",
    ]
    for name, runs in by_scheme.items():
        cells = [f"{statistics.mean(runs[factor]):.2f}" for factor in benchmark.FACTORS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw goodput over the failures of a chip in a year."""
    benchmark.draw(found["runs"], OPTIONS.learners, path)
