"""Gap-Aware Mitigation of Gradient Staleness, Barkai, Hakimi and Schuster, ICLR 2020 (1909.10802)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval

EPSILON = 1e-8


@dataclass(frozen=True)
class GapAware(Algorithm):
    """Divides a delta by the center's movement since the worker received it, in units of its usual steps.

    `c <- c + d / (1 + |c - b| / C)` with `C = eta (sqrt(EMA(v^2)) + 1e-8)`, where `v` is a commit's movement
    of the center, divided by `eta`: `C` is the root mean square of the center's steps. Elementwise; the
    average is corrected for its start at zero.

    A worker that stalls does no harm when it comes back: its delta is divided by the center's whole movement.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        learning_rate: the largest `eta` of the inner optimizer, in (0, inf]. It scales the `1e-8`, which
            avoids a division by zero for weights that have never moved. Infinity gives `DOWNPOUR`.
        decay: decay of the moving average, in [0, 1).

    Reference: Barkai et al. 2020, section 4.
    """

    communication_window: int | None = 5
    learning_rate: float = 0.1
    decay: float = 0.999

    needs_pulled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "learning_rate", "(0, inf]")
        check_interval(self, "decay", "[0, 1)")

    def init(self, center: Vector) -> State:
        return {"square": np.zeros_like(center), "commits": np.zeros(1, np.int64)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        square, commits = state["square"], state["commits"]
        penalty = commit.movement(center)
        np.abs(penalty, out=penalty)
        weight = max(1 - self.decay ** int(commits[0]), EPSILON)  # Before the first commit, `square` is 0.
        penalty /= self.learning_rate * (np.sqrt(square / weight) + EPSILON)
        penalty += 1
        message /= penalty
        center += message
        message /= self.learning_rate
        message *= message
        square *= self.decay
        square += (1 - self.decay) * message
        commits += 1
        return center
