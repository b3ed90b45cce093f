"""Large Scale Distributed Deep Networks, Dean et al., NeurIPS 2012."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class DOWNPOUR(Algorithm):
    """Adds every delta to the center on arrival: `c <- c + d`; the worker continues from the new center.

    Diverges if many workers commit long windows: use `DynSGD`, `ADAG` or `AEASGD` then.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.

    Reference: Dean et al. 2012, Large Scale Distributed Deep Networks.
    """

    communication_window: int | None = 5

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
