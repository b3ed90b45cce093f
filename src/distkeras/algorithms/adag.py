"""On Scalable Deep Learning and Parallelizing Gradient Descent, Hermans, Maastricht University 2017."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class ADAG(Algorithm):
    """Accumulated gradient normalization: `u = d / steps; c <- c + u`.

    A window of any length moves the center by about one step of the inner optimizer, in a better direction.
    A partial window is divided by the steps actually taken, so it weighs as much as a full one.

    dist-keras never committed the last, partial window, and divided by the nominal length.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.

    Reference: Hermans 2017, chapter 4 (there AGN; dist-keras calls it ADAG).
    """

    communication_window: int | None = 12

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        message = local - anchor
        message /= num_steps
        return message

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
