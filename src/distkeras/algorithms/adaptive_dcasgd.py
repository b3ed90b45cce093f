"""Asynchronous Stochastic Gradient Descent with Delay Compensation, Zheng et al., ICML 2017 (1609.08326)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval

EPSILON = 1e-7


@dataclass(frozen=True)
class AdaptiveDCASGD(Algorithm):
    """DCASGD with a strength of compensation for each weight: `c <- c - eta (g + lambda_t g^2 (c - b))`.

    `lambda_t = lambda_0 / sqrt(M + 1e-7)` with the mean square `M <- m M + (1 - m) g^2` and `g = -d / eta`:
    the paper's DC-ASGD-a. So the compensation does not grow with the square of the gradients, nor with that
    of the window: `lambda_0 |g|` stands for the curvature.

    Args:
        communication_window: minibatch steps between two exchanges of one worker; 1 in the paper.
        learning_rate: learning rate `eta` of the inner optimizer, plain SGD, above 0.
        lambda_0: strength of the compensation, at least 0; 0 gives `DOWNPOUR`.
        decay: decay `m` of the mean square, in [0, 1).

    Reference: Zheng et al. 2017, section 5 (DC-ASGD-a). The default of `lambda_0` is ours: at 1, quadratics
    of curvature 1 diverge.
    """

    communication_window: int | None = 1
    learning_rate: float = 0.1
    lambda_0: float = 0.2
    decay: float = 0.95

    needs_pulled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "learning_rate", "(0, inf)")
        check_interval(self, "lambda_0", "[0, inf)")
        check_interval(self, "decay", "[0, 1)")

    def init(self, center: Vector) -> State:
        return {"square": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        square = state["square"]
        gradient = message / -self.learning_rate
        gradient *= gradient
        square *= self.decay
        square += (1 - self.decay) * gradient
        compensation = commit.movement(center)
        compensation *= gradient
        compensation *= self.learning_rate * self.lambda_0 / np.sqrt(square + EPSILON)
        message -= compensation
        center += message
        return center
