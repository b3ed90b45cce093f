"""On Scalable Deep Learning and Parallelizing Gradient Descent, Hermans 2017: MNIST over workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distkeras.algorithms import REGISTRY
from distkeras.plots.style import charts, legend, line_style, save, styled
from distkeras.simulation import simulate
from papers.mnist import problem

RULES = ("DOWNPOUR", "DynSGD", "ADAG", "AdaptiveADAG", "AEASGD", "EAMSGD")
POINTS = ((10, 10), (20, 20), (30, 30), (40, 10), (40, 40))
"""Workers and windows."""
THESIS = {"ADAG": (98.43, 98.47, 98.39, 95.55, 98.18), "AEASGD": (98.64, 98.39, 97.77, 97.99, 97.45)}
"""Validation accuracy at these points, single runs of an MLP 784-1000-2000-1000-10 for 40 epochs."""
ROWS = 120_000
EAMSGD_RATE = 0.01
"""EAMSGD brings Nesterov momentum, and so has gradient descent inside; the others have Adam."""


def accuracy(rule: str, num_workers: int, window: int) -> float:
    """Return the test accuracy in percent after `ROWS` rows; that of chance where the run diverged."""
    result = simulate(
        REGISTRY[rule](communication_window=window),
        problem(adam=rule != "EAMSGD"),
        num_workers=num_workers,
        num_samples=ROWS,
        learning_rate=EAMSGD_RATE,
        evaluate_every=10**9,
        keep_centers=False,
    )
    if result.diverged:
        return 10.0
    return round(100 * float(result.metrics["sparse_categorical_accuracy"][-1]), 2)


def compute() -> dict[str, Any]:
    """Return the accuracy of each rule at each point."""
    return {rule: [accuracy(rule, *point) for point in POINTS] for rule in RULES}


def table(found: dict[str, Any]) -> str:
    """Return our accuracies, and the thesis's below them."""
    lines = [
        "| workers, window | " + " | ".join(f"{count}, {window}" for count, window in POINTS) + " |",
        "|---" * (1 + len(POINTS)) + "|",
    ]
    lines += [f"| {rule} | " + " | ".join(f"{hit:.1f}" for hit in found[rule]) + " |" for rule in RULES]
    lines += [
        f"| *{rule}, the thesis* | " + " | ".join(f"*{hit:.1f}*" for hit in hits) + " |"
        for rule, hits in THESIS.items()
    ]
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the accuracies over the points, ours beside the thesis's."""
    title = "MNIST over workers and windows"
    figure, [[ours, theirs]] = charts(1, 2, title, width=4.2, height=3.2)
    places, labels = range(len(POINTS)), [f"{count}, {window}" for count, window in POINTS]
    with styled():
        for number, rule in enumerate(RULES):
            style: dict[str, Any] = {"marker": "o", "markersize": 3.5, **line_style(number)}
            ours.plot(places, found[rule], label=rule, **style)
            if rule in THESIS:
                theirs.plot(places, THESIS[rule], label=rule, **style)
        ours.set(ylabel="test accuracy [%]", title="simulated, MLP 784-64-10")
        theirs.set(title="the thesis, a larger MLP, 20 times the rows")
        for axes in (ours, theirs):
            axes.set(xlabel="workers, window")
            axes.set_xticks(list(places), labels)
            legend(axes, loc="lower left")
        save(figure, path)
