"""Streaming DiLoCo with Overlapping Communication, Douillard et al., 2025 (2501.18512)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval, check_pattern
from distkeras.algorithms.nesterov import outer_nesterov


@dataclass(frozen=True)
class StreamingDiLoCo(Algorithm):
    """DiLoCo for one fragment of the model at a time, mixed into what the worker has trained meanwhile.

    For each fragment: `m <- beta m + g; c <- c - eps (beta m + g)` with `g = -mean_i d_i`, by the workers'
    samples; then `x <- alpha x + (1 - alpha) c; b <- c`. With one fragment, `alpha` 0 and no overlap it is
    DiLoCo. `overlap=` of the trainer sets the steps from a message to the use of its reply, 1 to 5 in the
    paper.

    Made for an adaptive inner optimizer (AdamW), whose state stays with each worker. The replacement of a
    worker trains again what a fragment lacks; the other fragments do not count it twice.

    Args:
        communication_window: minibatch steps between two rounds of one fragment.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).
        alpha: share of the worker's own weights in what it continues from, in [0, 1].
        fragments: number of fragments, at most the layers and the steps of a window; by default one for every
            three layers.
        fragment_pattern: "strided" for every P-th layer in a fragment, "sequential" for successive layers.

    Reference: Douillard et al. 2025, algorithm 2.
    """

    communication_window: int | None = 100
    outer_learning_rate: float = 0.4
    outer_momentum: float = 0.9
    alpha: float = 0.5
    fragments: int | None = None
    fragment_pattern: str = "strided"

    synchronous: ClassVar[bool] = True

    anchor_at_reply: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")
        check_interval(self, "alpha", "[0, 1]")
        if self.fragments is not None:
            check_interval(self, "fragments", "[1, inf)", integer=True)
        check_pattern(self)

    def init(self, center: Vector) -> State:
        return {"momentum": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        outer_nesterov(center, message, state["momentum"], self.outer_learning_rate, self.outer_momentum)
        return center

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        return reply if self.alpha == 0 else self.alpha * local + (1 - self.alpha) * reply
