"""Decoupled DiLoCo for Resilient Distributed Pre-training, Douillard et al., 2026 (2604.21428)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval, check_pattern
from distkeras.algorithms.nesterov import outer_nesterov

CANCELLED = 1e-6
"""Length of a mean of unit vectors below which they cancel: what is left of it is rounding."""


@dataclass(frozen=True)
class DecoupledDiLoCo(Algorithm):
    """DiLoCo in fragments, whose rounds need a quorum, with deltas averaged by length and direction.

    For each fragment: `g = -RDA_i d_i; m <- beta m + g; c <- c - eps (beta m + g); x <- c`, with, per tensor,

        RDA(d, w) = (sum w |d| / sum w) * phi(sum w phi(d) / sum w),  phi(v) = v / |v|,  phi(0) = 0

    and `w = rows^2 / steps` since the worker's last round of this fragment: the amount of its data, times the
    rows of a step. Directions that cancel give the plain mean. The mean of N orthogonal deltas is sqrt(N)
    times shorter than they are; here the length does not depend on N, so the outer rate need not.

    Give the trainer `quorum=K` and `grace=seconds`: a round closes so long after its K-th message, without
    those who stand still or are dead. Learners go on training if `overlap=` gives steps for the exchange.

    Departures from the paper: a late message counts in the next round of its fragment, as a delta from the
    center that its learner had received; the paper drops it, and takes deltas from the server's own last
    center. In a round where nobody is late the two are the same. Embeddings are averaged like all other
    tensors, the paper takes their plain mean. The paper names no outer rate; ours are DiLoCo's.

    Args:
        communication_window: minibatch steps between two rounds of one fragment.
        outer_learning_rate: `eps`, above 0.
        outer_momentum: `beta`, in [0, 1).
        fragments: number of fragments, at most the layers and the steps of a window; by default one for every
            three layers.
        fragment_pattern: "strided" for every P-th layer in a fragment, "sequential" for successive layers.

    Reference: Douillard et al. 2026, Decoupled DiLoCo.
    """

    communication_window: int | None = 100
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9
    fragments: int | None = None
    fragment_pattern: str = "strided"

    synchronous: ClassVar[bool] = True
    needs_tensors: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "outer_momentum", "[0, 1)")
        if self.fragments is not None:
            check_interval(self, "fragments", "[1, inf)", integer=True)
        check_pattern(self)

    def init(self, center: Vector) -> State:
        return {"momentum": np.zeros_like(center)}

    def weight(self, num_samples: int, num_steps: int) -> float:
        return num_samples * num_samples / max(num_steps, 1)

    def combine(self, messages: Sequence[Vector], weights: Vector) -> Vector:
        norms = np.array([np.linalg.norm(message) for message in messages], weights.dtype)
        scales = np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0)
        direction: Vector = scales[0] * messages[0]
        for scale, message in zip(scales[1:], messages[1:], strict=True):
            direction += scale * message
        length = float(np.linalg.norm(direction))
        if len(messages) == 1 or length < CANCELLED:
            return super().combine(messages, weights)
        direction *= float(weights @ norms) / length
        return direction

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        outer_nesterov(center, message, state["momentum"], self.outer_learning_rate, self.outer_momentum)
        return center
