"""Distributed Training Strategies for the Structured Perceptron, McDonald et al., NAACL 2010."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector


@dataclass(frozen=True)
class Averaging(Algorithm):
    """After each epoch the center becomes the mean of the workers' weights, by samples: `c <- mean_i x_i`.

    The replacement of a failed worker trains the epoch again; the others wait for it.

    dist-keras never zeroed its buffer: the average also contained the previous epoch, divided by N.

    Args:
        communication_window: minibatch steps between two averages; `None` means one epoch.

    Reference: McDonald et al. 2010 (there iterative parameter mixing).
    """

    communication_window: int | None = None

    synchronous: ClassVar[bool] = True

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        return local.copy()

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center[:] = message
        return center
