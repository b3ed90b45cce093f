"""The picture of docs/monitoring.md: simulated trainings against time, rows and bytes.

    python benchmarks/compare.py [--points 25] [--figure FILE]

The MLP of benchmarks/convergence.py on MNIST, 8 workers with 30 ms a step, a network of 20 ms and 10 MB/s.
The same arguments draw the same picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from grid.running import ROOT, problem

import distkeras
from distkeras.algorithms import ADAG, DOWNPOUR, Algorithm, LocalSGD
from distkeras.plots.style import save
from distkeras.simulation import Gamma, Network, Result, simulate

WORKERS, SAMPLES, BATCH_SIZE, LEARNING_RATE = 8, 240_000, 32, 0.1
TRAININGS: dict[str, tuple[Algorithm, dict[str, Any]]] = {
    "ADAG, window 4": (ADAG(4), {}),
    "DOWNPOUR, window 2": (DOWNPOUR(2), {}),
    "ADAG, window 4, int8": (ADAG(4), {"compression": "int8"}),
    "LocalSGD, window 16": (LocalSGD(16), {}),
}


def run(rule: Algorithm, points: int, **options: Any) -> Result:
    """Simulate a training that evaluates the center about `points` times."""
    together = WORKERS if rule.synchronous else 1
    commits = SAMPLES // (BATCH_SIZE * (rule.communication_window or 1) * together)
    return simulate(
        rule,
        problem(BATCH_SIZE, "rows"),
        num_workers=WORKERS,
        num_commits=commits,
        learning_rate=LEARNING_RATE,
        step_time=Gamma(mean=0.03),
        network=Network(latency=0.02, bandwidth=10e6),
        evaluate_every=max(1, commits // points),
        keep_centers=False,
        **options,
    )


def main() -> None:
    """Simulate and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=25, help="evaluations of each training")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "compare.png")
    options = parser.parse_args()
    results = [run(rule, options.points, **further) for rule, further in TRAININGS.values()]
    metric = "sparse_categorical_accuracy"
    figure = distkeras.compare(results, metric, labels=list(TRAININGS))
    for axes in figure.axes:
        axes.set_ylim(0.7, 1)  # The first moments are alike.
    save(figure, options.figure)
    for name, result in zip(TRAININGS, results, strict=True):
        print(f"{name}: {100 * result.metrics[metric][-1]:.1f} % after {result.times[-1]:.0f} s")


if __name__ == "__main__":
    main()
