"""Streaming DiLoCo, Douillard et al. 2025 (2501.18512), table 4: bandwidth that keeps machines busy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distkeras.algorithms import Algorithm, DiLoCo, LocalSGD, StreamingDiLoCo, Vector
from distkeras.plots.style import charts, legend, line_style, save, styled
from distkeras.simulation import Constant, Network, Replica, simulate

WINDOW = 100
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
GIGABITS = tuple(float(value) for value in np.geomspace(0.2, 2000, 17))
SIZE = 9600
"""Weights that are simulated; their bytes count for the model's."""
LAYERS_OF_A_FRAGMENT = 3
OVERLAP = 5
"""Steps of training during an exchange; fewer where fragments follow each other sooner."""


@dataclass(frozen=True)
class Model:
    """A model of the paper: its weights, its layers, and the seconds of a step."""

    weights: float
    layers: int
    seconds: float


MODELS = {"1B": Model(1e9, 24, 0.1), "10B": Model(1e10, 48, 0.8), "100B": Model(1e11, 108, 4.9)}


@dataclass(frozen=True)
class Method:
    """A way to exchange: its algorithm, its compression, and whether workers train during an exchange."""

    kind: str
    compression: str = "bf16"
    overlaps: bool = False

    def algorithm(self, fragments: int) -> Algorithm:
        """Return the algorithm."""
        if self.kind == "streaming":
            return StreamingDiLoCo(WINDOW, fragments=fragments)
        return LocalSGD(1) if self.kind == "data-parallel" else DiLoCo(WINDOW)


METHODS = {
    "data-parallel": Method("data-parallel"),
    "DiLoCo": Method("diloco"),
    "Streaming DiLoCo": Method("streaming"),
    "and overlap": Method("streaming", overlaps=True),
    "and 4 bits": Method("streaming", "fp4", overlaps=True),
}
PAPER = {
    "1B": {
        "data-parallel": (86.8, 152.6, 184.2, 222.3, 569.0),
        "DiLoCo": (1.4, 6.2, 13.3, 23.3, 86.8),
        "Streaming DiLoCo": (1.4, 5.2, 9.1, 16.0, 28.1),
        "and overlap": (1.4, 4.3, 6.2, 9.1, 11.0),
        "and 4 bits": (0.4, 0.9, 1.7, 2.0, 3.0),
    },
    "10B": {
        "data-parallel": (104.8, 222.3, 222.3, 268.3, 471.5),
        "DiLoCo": (1.7, 7.5, 16.0, 33.9, 104.8),
        "Streaming DiLoCo": (1.7, 5.2, 9.1, 13.3, 19.3),
        "and overlap": (1.7, 3.6, 5.2, 6.2, 7.5),
        "and 4 bits": (0.4, 0.9, 1.4, 1.4, 1.7),
    },
    "100B": {
        "data-parallel": (184.2, 323.8, 390.7, 390.7, 471.5),
        "DiLoCo": (3.0, 11.0, 23.3, 49.4, 184.2),
        "Streaming DiLoCo": (2.4, 6.2, 9.1, 11.0, 19.3),
        "and overlap": (1.7, 3.6, 4.3, 5.2, 5.2),
        "and 4 bits": (0.5, 0.9, 1.1, 1.1, 1.4),
    },
}
"""Gigabits a second to reach each of `LEVELS`: their table 4."""


class Still:
    """A problem of which every step takes its time, and moves nothing."""

    initial = np.zeros(SIZE, np.float32)
    num_trainable = SIZE

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return 1."""
        return 1

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Return `weights`, and a row a step."""
        return weights, num_steps

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return a loss of 0."""
        return {"loss": 0.0}


def utilization(method: Method, model: Model, gigabits: float) -> float:
    """Return the share of its time for which a machine trains, with a link of so many gigabits a second."""
    fragments = model.layers // LAYERS_OF_A_FRAGMENT
    result = simulate(
        method.algorithm(fragments),
        Still(),
        num_workers=2,
        num_samples=2 * 10 if method.kind == "data-parallel" else 2 * 5 * WINDOW,
        learning_rate=0.0,
        step_time=Constant(model.seconds),
        network=Network(bandwidth=gigabits * 1e9 / 8 * SIZE / model.weights),
        evaluate_every=10**9,
        keep_centers=False,
        compression=method.compression,
        overlap=min(OVERLAP, WINDOW // fragments - 1) if method.overlaps else False,
    )
    # The first replies are not compressed yet: the paper's figure is that of a long training.
    first = 2 * (result.algorithm.fragments or 1)
    steps = (result.samples[-1] - result.samples[first]) / 2
    return float(steps * model.seconds / (result.times[-1] - result.times[first]))


def compute() -> dict[str, Any]:
    """Return the utilization of each model and method at each bandwidth."""
    return {
        name: {
            method: [round(utilization(how, model, gigabits), 4) for gigabits in GIGABITS]
            for method, how in METHODS.items()
        }
        for name, model in MODELS.items()
    }


def needed(shares: list[float], level: float) -> float | None:
    """Return the gigabits a second from which on the utilization is at least `level`."""
    if shares[-1] < level:
        return None
    last = max((number for number, share in enumerate(shares) if share < level), default=-1)
    if last < 0:
        return GIGABITS[0]
    places = np.log(GIGABITS[last : last + 2])
    return float(np.exp(np.interp(level, shares[last : last + 2], places)))


def table(found: dict[str, Any]) -> str:
    """Return the bandwidths for the levels, each as ours / the paper's."""
    lines = [
        "| model | method | " + " | ".join(f"{100 * level:.0f} %" for level in LEVELS) + " |",
        "|---" * (2 + len(LEVELS)) + "|",
    ]
    for model, methods in found.items():
        for method, shares in methods.items():
            cells = []
            for level, paper in zip(LEVELS, PAPER[model][method], strict=True):
                ours = needed(shares, level)
                cells.append(f"{'-' if ours is None else format(ours, '.1f')} / {paper:g}")
            lines.append(f"| {model} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the utilization over the bandwidth, and the paper's figures as points."""
    title = "Utilization over bandwidth: lines simulated, points from the paper"
    figure, [row] = charts(1, len(found), title, width=4.0, height=3.2, sharey=True)
    with styled():
        for axes, (model, methods) in zip(row, found.items(), strict=True):
            for number, (method, shares) in enumerate(methods.items()):
                style = line_style(number)
                axes.plot(GIGABITS, shares, label=method, **style)
                axes.plot(PAPER[model][method], LEVELS, "o", markersize=4, color=style["color"])
            seconds = MODELS[model].seconds
            axes.set(xscale="log", xlabel="Gbit/s", title=f"{model} weights, {seconds:g} s a step")
        row[0].set(ylabel="compute utilization", ylim=(0, 1.02))
        legend(row[-1], loc="upper left", bbox_to_anchor=(1.01, 1.0))
        save(figure, path)
