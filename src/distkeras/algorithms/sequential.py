"""Plain training on one worker, as an algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class Sequential(Algorithm):
    """One worker trains alone: `c <- x`, and the worker keeps its weights to the bit.

    The exchange only reports progress and keeps a center for restarts. With several workers each commit would
    overwrite the others': trainers use it with one worker only.

    Args:
        communication_window: minibatch steps between two reports.
    """

    communication_window: int | None = 50

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        return local.copy()

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center[:] = message
        return center

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        return local
