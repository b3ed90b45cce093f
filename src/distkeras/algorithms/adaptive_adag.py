"""On Scalable Deep Learning and Parallelizing Gradient Descent, Hermans, Maastricht University 2017."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class AdaptiveADAG(Algorithm):
    """ADAG with damping by the center's movement since the worker received it.

    `u = d / steps; c <- c + u / (1 + (c - b)^2 / gamma)`, elementwise: damps only the weights that others
    moved since this worker received `b`. This is the thesis's asynchronous distributed adaptive gradients;
    dist-keras calls it `Experimental`.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        gamma: square of the movement that halves an update, in (0, inf]; infinity gives `ADAG`.

    Reference: Hermans 2017, chapter 5.
    """

    communication_window: int | None = 12
    gamma: float = 1e-4

    needs_pulled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "gamma", "(0, inf]")

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        message = local - anchor
        message /= num_steps
        return message

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        damping = commit.movement(center)
        damping *= damping
        damping /= self.gamma
        damping += 1
        message /= damping
        center += message
        return center
