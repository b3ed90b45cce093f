"""Federated Learning with Buffered Asynchronous Aggregation, Nguyen et al., AISTATS 2022 (2106.06639)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distkeras.algorithms.base import BUFFER, TAKE, Algorithm, Commit, State, Vector, Verdict
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class FedBuff(Algorithm):
    """Adds the mean of K deltas at once: `S <- S + d / sqrt(1 + tau)`; with the K-th, `c <- c + eps S / K`.

    Nobody waits: a worker whose delta was buffered continues from the center. With K = 1 and a staleness of
    0 it is DOWNPOUR.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        buffer_size: `K`, deltas that make one update of the center, at least 1; by default 10, or the number
            of workers if there are fewer.
        outer_learning_rate: `eps`, above 0.

    Reference: Nguyen et al. 2022, algorithms 1 and 2; the staleness weight is their section 5's.
    """

    communication_window: int | None = 50
    buffer_size: int | None = None
    outer_learning_rate: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.buffer_size is not None:
            check_interval(self, "buffer_size", "[1, inf)", integer=True)
        check_interval(self, "outer_learning_rate", "(0, inf)")

    def init(self, center: Vector) -> State:
        return {"buffer": np.zeros_like(center)}

    def decide(self, commit: Commit) -> Verdict:
        return TAKE if commit.buffered + 1 >= self._size(commit) else BUFFER

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        message /= np.sqrt(1 + commit.staleness, dtype=message.dtype)
        state["buffer"] += message
        if commit.verdict is TAKE:
            state["buffer"] *= self.outer_learning_rate / self._size(commit)
            center += state["buffer"]
            state["buffer"][:] = 0
        return center

    def _size(self, commit: Commit) -> int:
        return self.buffer_size or min(10, commit.num_workers)
