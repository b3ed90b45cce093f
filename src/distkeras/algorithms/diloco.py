"""DiLoCo: Distributed Low-Communication Training of Language Models, Douillard et al., 2023 (2311.08105)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval
from distkeras.algorithms.nesterov import outer_nesterov


@dataclass(frozen=True)
class DiLoCo(Algorithm):
    """Outer Nesterov momentum over long windows, on the mean delta.

    `m <- beta m + g; c <- c - eps (beta m + g)` with `g = -mean_i d_i`, by the workers' samples.

    Made for an adaptive inner optimizer (AdamW), whose state stays with each worker: the replacement of a
    worker starts with a new state.

    Args:
        communication_window: minibatch steps between two rounds.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).

    Reference: Douillard et al. 2023, algorithm 1.
    """

    communication_window: int | None = 500
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9

    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")

    def init(self, center: Vector) -> State:
        return {"momentum": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        outer_nesterov(center, message, state["momentum"], self.outer_learning_rate, self.outer_momentum)
        return center
