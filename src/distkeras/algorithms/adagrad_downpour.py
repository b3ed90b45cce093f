"""Large Scale Distributed Deep Networks, Dean et al., NeurIPS 2012."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class AdagradDOWNPOUR(Algorithm):
    """DOWNPOUR with Adagrad at the server: `S <- S + d^2; c <- c + gamma d / (sqrt(S) + epsilon)`.

    Elementwise. The paper's way to make Downpour robust with many workers: each weight has a learning rate of
    its own, which falls with every commit. Only the direction of a delta and its size beside earlier ones
    count, so that the learning rate of the inner optimizer scales nothing at the server. A weight's first
    move is `gamma`, its n-th about `gamma / sqrt(n)`.

    The paper pushes gradients, and its `gamma` is the rate of the first step, without `epsilon`. Here a
    delta is the sum of a window's steps.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        outer_learning_rate: `gamma`, above 0: how far a weight's first commit moves it.
        epsilon: avoids a division by zero, above 0.

    Reference: Dean et al. 2012, section 4.1, "Adagrad"; Duchi et al. 2011.
    """

    communication_window: int | None = 5
    outer_learning_rate: float = 0.1
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "epsilon", "(0, inf)")

    def init(self, center: Vector) -> State:
        return {"square": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        square = state["square"]
        square += message * message
        message /= np.sqrt(square) + self.epsilon
        message *= self.outer_learning_rate
        center += message
        return center
