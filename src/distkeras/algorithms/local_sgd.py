"""Local SGD Converges Fast and Communicates Little, Stich, ICLR 2019 (1805.09767)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class LocalSGD(Algorithm):
    """Each round moves the center by the workers' mean delta, weighted by samples: `c <- c + mean_i d_i`.

    All workers start a round from the center, so this equals `c <- mean_i x_i`. Deltas can be compressed, and
    a message that misses its round (see `quorum`) contributes its progress, not its old weights.

    Args:
        communication_window: minibatch steps between two rounds; 16 as in Lin et al. 2020, Don't Use Large
            Mini-batches, Use Local SGD.

    Reference: Stich 2018, Local SGD Converges Fast and Communicates Little.
    """

    communication_window: int | None = 16

    synchronous: ClassVar[bool] = True

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
