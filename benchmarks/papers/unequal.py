"""Asynchronous Local-SGD Training for Language Modeling, Liu et al. 2024 (2401.09135): unequal machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distkeras.algorithms import Algorithm, DelayedNesterov, DiLoCo, DyLU
from distkeras.plots.style import charts, legend, line_style, save
from distkeras.simulation import Heterogeneous, simulate
from papers.mnist import problem

WORKERS = 4
WINDOW = 20
ROWS = 240_000
METHODS: dict[str, Algorithm] = {
    "synchronous (DiLoCo)": DiLoCo(WINDOW),
    "asynchronous, Nesterov at each commit": DelayedNesterov(WINDOW, period=1),
    "asynchronous, Delayed Nesterov": DelayedNesterov(WINDOW),
    "Delayed Nesterov + DyLU": DyLU(WINDOW),
}
PAPER = {
    "synchronous (DiLoCo)": 41.35,
    "asynchronous, Nesterov at each commit": 44.27,
    "Delayed Nesterov + DyLU": 41.13,
}
"""Perplexity of the largest model, 150 million weights."""


def compute() -> dict[str, Any]:
    """Return virtual seconds, rows and test loss of each method."""
    found = {}
    for name, algorithm in METHODS.items():
        result = simulate(
            algorithm,
            problem(adam=True),
            num_workers=WORKERS,
            num_samples=ROWS,
            step_time=Heterogeneous(),
            evaluate_every=5 if algorithm.synchronous else 5 * WORKERS,
            keep_centers=False,
            seed=1,
        )
        found[name] = {
            "seconds": [round(float(time), 1) for time in result.evaluated],
            "rows": result.samples[result.versions].tolist(),
            "loss": [round(float(loss), 4) for loss in result.losses],
            "diverged": result.diverged,
        }
    return found


def table(found: dict[str, Any]) -> str:
    """Return loss and virtual time of each method at the end, beside the paper's perplexity."""
    lines = ["| method | test loss | virtual seconds | perplexity, the paper |", "|---|---|---|---|"]
    for name in METHODS:
        end = found[name]
        loss = "diverged" if end["diverged"] else f"{end['loss'][-1]:.3f}"
        lines.append(f"| {name} | {loss} | {end['seconds'][-1]:,.0f} | {PAPER.get(name, '-')} |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the loss over virtual time and over rows."""
    title = "Four unequal machines, MNIST"
    figure, [[by_time, by_rows]] = charts(1, 2, title, width=4.4, height=3.2, sharey=True)
    for number, name in enumerate(METHODS):
        style = line_style(number)
        by_time.plot(found[name]["seconds"][1:], found[name]["loss"][1:], label=name, **style)
        by_rows.plot(found[name]["rows"][1:], found[name]["loss"][1:], **style)
    by_time.set(xlabel="virtual time [s]", xscale="log", yscale="log", ylabel="test loss", ylim=(0.08, 2.5))
    by_rows.set(xlabel="rows")
    legend(by_time)
    save(figure, path)
