"""Heterogeneity-aware Distributed Parameter Servers, Jiang et al., SIGMOD 2017."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class DynSGD(Algorithm):
    """A delta counts less the staler it is: `c <- c + d / (tau + 1)`.

    A worker that stalls does no harm when it comes back: its late delta is divided by all commits it missed.

    dist-keras read the staleness outside the lock, so that other commits could come in between.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.

    Reference: Jiang et al. 2017; Zhang et al. 2016, Staleness-aware Async-SGD (1511.05950).
    """

    communication_window: int | None = 5

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        message /= commit.staleness + 1
        center += message
        return center
