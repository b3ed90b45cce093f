"""Adaptive Federated Optimization, Reddi et al., ICLR 2021 (2003.00295)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class FedAdam(Algorithm):
    """Adam on the mean delta `D = mean_i d_i`, without bias correction.

    `c <- c + eta m / (sqrt(v) + epsilon)` with `m <- beta_1 m + (1 - beta_1) D; v <- beta_2 v + (1 - beta_2)
    D^2`, from `m = 0` and `v = epsilon^2`.

    Args:
        communication_window: minibatch steps between two rounds; `None` means one epoch, the paper's choice.
        outer_learning_rate: `eta`, above 0: approximate movement of each weight in a round.
        beta_1: decay of the mean, in [0, 1).
        beta_2: decay of the mean square, in [0, 1).
        epsilon: the paper's degree of adaptivity `tau`, above 0; its authors recommend 1e-3. A smaller one
            lets weights whose deltas are tiny move as far as all others.

    Reference: Reddi et al. 2021, algorithm 2.
    """

    communication_window: int | None = None
    outer_learning_rate: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 1e-3

    synchronous: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "outer_learning_rate", "(0, inf)")
        check_interval(self, "beta_1", "[0, 1)")
        check_interval(self, "beta_2", "[0, 1)")
        check_interval(self, "epsilon", "(0, inf)")

    def init(self, center: Vector) -> State:
        return {"mean": np.zeros_like(center), "square": np.full_like(center, self.epsilon**2)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        mean, square = state["mean"], state["square"]
        mean *= self.beta_1
        mean += (1 - self.beta_1) * message
        message *= message
        square *= self.beta_2
        square += (1 - self.beta_2) * message
        scale = np.sqrt(square, out=message)
        scale += self.epsilon
        center += self.outer_learning_rate * mean / scale
        return center
