"""Asynchronous Local-SGD Training for Language Modeling, Liu et al., 2024 (2401.09135)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class DelayedNesterov(Algorithm):
    """Asynchronous DiLoCo: deltas apply immediately, and every n-th delta updates the momentum.

    With `g = -d` and `buffer <- buffer + g`: `c <- c - eps (cc beta m + g / n)`; with every n-th commit first
    `m <- beta m + buffer / n`, then `c <- c - eps ((1 - cc n + cc) beta m + g / n)` and `buffer <- 0`.

    With n = 1 it is sequential Nesterov on stale deltas, which many workers make diverge: from `m` and four
    times the same `g`, the center moves by `-eps (12.1441 g + 2.78559 m)` at beta 0.9, against
    `-eps (1.9 g + 0.81 m)` with n = 4.

    The failure of a worker does not stop the others: n counts commits, whichever workers send them.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).
        period: `n`, commits between two updates of the momentum; by default the number of workers.
        activation: `cc`, the share of the momentum in each commit, in [0, 1 / n]. With 0, the n-th commit
            applies all of it.

    Reference: Liu et al. 2024, algorithm 3.
    """

    communication_window: int | None = 50
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    period: int | None = None
    activation: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")
        if self.period is not None:
            check_interval(self, "period", "[1, inf)", integer=True)
        check_interval(self, "activation", f"[0, {1 / (self.period or 1)}]")

    def init(self, center: Vector) -> State:
        return {
            "momentum": np.zeros_like(center),
            "buffer": np.zeros_like(center),
            "commits": np.zeros(1, np.int64),
        }

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        n, share = self.period or commit.num_workers, self.activation
        momentum, buffer, commits = state["momentum"], state["buffer"], state["commits"]
        buffer += message
        commits += 1
        if commits[0] >= n:
            share = 1 - share * (n - 1)
            momentum *= self.outer_momentum
            buffer /= n
            momentum += buffer
            buffer[:] = 0
            commits[:] = 0
        message /= n
        if share:
            message += share * self.outer_momentum * momentum
        message *= self.outer_learning_rate
        center += message
        return center
