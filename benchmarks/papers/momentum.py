"""Asynchrony begets Momentum, Mitliagkas et al. 2016 (1605.09774): N workers have a momentum of 1 - 1/N."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distkeras.algorithms import DOWNPOUR
from distkeras.plots.style import COLORS, INK, charts, legend, save
from distkeras.simulation import Exponential, Quadratic, simulate

WORKERS = (1, 2, 4, 8, 16)
RUNS = 200
COMMITS = 60
RATE = 0.1
"""Learning rate times curvature."""


def mean_weights(num_workers: int) -> list[float]:
    """Return the mean of the weight over all runs, after each commit."""
    runs = [
        simulate(
            DOWNPOUR(communication_window=1),
            Quadratic(),
            num_workers=num_workers,
            num_commits=COMMITS,
            learning_rate=RATE,
            step_time=Exponential(),
            seed=seed,
        ).centers.ravel()
        for seed in range(RUNS)
    ]
    return [float(weight) for weight in np.mean(runs, axis=0)]


def momentum_of(weights: list[float]) -> float:
    """Return the momentum that explains a mean trajectory best.

    With momentum mu, `d(t+1) + RATE w(t) = mu (d(t) + RATE w(t))` for steps `d(t) = w(t) - w(t-1)`. This is
    solved for mu by least squares.
    """
    mean = np.array(weights)
    steps = np.diff(mean)
    before, after = steps[:-1] + RATE * mean[1:-1], steps[1:] + RATE * mean[1:-1]
    return float(before @ after / (before @ before))


def compute() -> dict[str, Any]:
    """Return the mean trajectory of each number of workers, and its momentum."""
    trajectories = {num_workers: mean_weights(num_workers) for num_workers in WORKERS}
    return {
        "trajectories": {str(key): [round(w, 5) for w in mean] for key, mean in trajectories.items()},
        "momentum": {str(key): round(momentum_of(mean), 3) for key, mean in trajectories.items() if key > 1},
    }


def table(found: dict[str, Any]) -> str:
    """Return the momentum that was measured beside the paper's."""
    lines = ["| workers | momentum, simulated | 1 - 1/N |", "|---|---|---|"]
    lines += [
        f"| {count} | {value:.2f} | {1 - 1 / int(count):.2f} |" for count, value in found["momentum"].items()
    ]
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the momentum over the number of workers, and the mean trajectories."""
    figure, [[left, right]] = charts(1, 2, "Asynchrony is momentum", width=4.2, height=3.0)
    counts = [int(count) for count in found["momentum"]]
    places = np.linspace(1, max(counts), 100)
    left.plot(places, 1 - 1 / places, color=INK, linestyle=":", label="the paper: 1 - 1/N")
    left.plot(counts, list(found["momentum"].values()), "o", color=COLORS[0], label="simulated")
    left.set(xlabel="workers", ylabel="momentum", ylim=(0, 1), xticks=counts)
    for color, (count, mean) in zip(COLORS, found["trajectories"].items(), strict=False):
        right.plot(mean, color=color, label=f"N = {count}")
    right.set(xlabel="commits", ylabel="mean weight")
    legend(left, loc="lower right")
    legend(right)
    save(figure, path)
