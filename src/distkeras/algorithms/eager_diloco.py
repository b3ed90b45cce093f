"""Eager Updates for Overlapped Communication and Computation in DiLoCo, Kale et al., 2025 (2502.12996)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval
from distkeras.algorithms.nesterov import outer_nesterov


@dataclass(frozen=True)
class EagerDiLoCo(Algorithm):
    """DiLoCo whose workers step by the mean delta of the round before, with their own fresh part in it.

    In the paper, worker i takes DiLoCo's outer step at round t from `g = mean_j d_j(t-1) + (d_i(t) -
    d_i(t-1)) / N`. Summed up over the rounds this is the center before round t, and the outer step of the
    worker's own deltas: `m <- beta m + d_i; x <- c(t-1) + eps (beta m + d_i) / N`, which is what we compute.
    So rounding does not add up, and the center itself is that of DiLoCo. With one worker it is DiLoCo.

    A worker that joins starts from the center, and with `m = 0`. All workers weigh alike.

    Departure from the paper: its workers do not wait for round t-1 while they train round t. Here the answer
    comes when round t is complete, so that all workers have the same rounds; a worker waits for the others as
    in DiLoCo, unless a `quorum` closes the round without them.

    Args:
        communication_window: minibatch steps between two rounds.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).
        share: part of a worker's own delta in a mean, in (0, 1]; by default one over the number of workers.

    Reference: Kale et al. 2025, eager updates. Our defaults of `eps` and `beta` are those of DiLoCo.
    """

    communication_window: int | None = 500
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    share: float | None = None

    synchronous: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")
        if self.share is not None:
            check_interval(self, "share", "(0, 1]")

    def for_workers(self, num_workers: int) -> EagerDiLoCo:
        return self if self.share is not None else replace(self, share=1 / num_workers)

    def init(self, center: Vector) -> State:
        return {"momentum": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        before = center.copy()
        outer_nesterov(center, message, state["momentum"], self.outer_learning_rate, self.outer_momentum)
        return before

    def adopt_with(self, local: Vector, message: Vector, reply: Vector, memory: State) -> Vector:
        if self.share is None:
            raise ValueError(
                "`share` of EagerDiLoCo depends on the number of workers: pass it, or call "
                f"`algorithm.for_workers(num_workers)` first. Received: {self!r}"
            )
        weights, own = reply.copy(), self.share * message
        momentum = memory.setdefault("momentum", np.zeros_like(own))
        outer_nesterov(weights, own, momentum, self.outer_learning_rate, self.outer_momentum)
        return weights
