"""Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, Yin et al., 2018 (1803.01498)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval

CHUNK = 8 * 1024
"""Elements that are sorted at a time: the copies of all messages would take as much memory as these."""


@dataclass(frozen=True)
class TrimmedMean(Algorithm):
    """Each round moves the center by the coordinate-wise trimmed mean of the deltas: `c <- c + trim_i d_i`.

    Of K deltas it drops, in each coordinate, the `floor(beta K)` largest and as many of the smallest, and
    takes the mean of the rest with equal weights. So up to a share `beta` of workers may send anything, such
    as deltas from damaged data, and move the center no further than the others do. Statistics, such as those
    of BatchNorm, are averaged over all workers.

    Args:
        communication_window: minibatch steps between two rounds.
        beta: the share that is dropped at each end, in [0, 0.5); with 0, and in rounds of fewer than
            `1 / beta` messages, it is LocalSGD with equal weights.

    Reference: Yin et al. 2018, definition 2, on deltas in place of gradients.
    """

    communication_window: int | None = 16
    beta: float = 0.1

    synchronous: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "beta", "[0, 0.5)")

    def combine(self, messages: Sequence[Vector], weights: Vector) -> Vector:
        # The small number is for products such as 0.29 * 100, which is just below 29.
        drop = min(int(self.beta * len(messages) + 1e-9), (len(messages) - 1) // 2)
        if not drop:
            return super().combine(messages, weights)
        mean = messages[0]
        for low in range(0, mean.size, CHUNK):
            part = slice(low, low + CHUNK)
            ordered = np.sort(np.stack([message[part] for message in messages], axis=1))
            mean[part] = ordered[:, drop:-drop].mean(axis=1)
        return mean

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
