"""Large Scale Distributed Deep Networks, Dean et al., NeurIPS 2012."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class DOWNPOUR(Algorithm):
    """Every delta is added to the center as it comes: `c <- c + d`; the worker goes on from the new center.

    Diverges when many workers push long windows: use `DynSGD`, `ADAG` or `AEASGD` there.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.

    Reference: Dean et al. 2012, Large Scale Distributed Deep Networks.
    """

    communication_window: int | None = 5

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
