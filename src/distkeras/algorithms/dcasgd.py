"""Asynchronous Stochastic Gradient Descent with Delay Compensation, Zheng et al., ICML 2017 (1609.08326)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class DCASGD(Algorithm):
    """Corrects a stale gradient to the current center by Taylor: `c <- c - eta (g + lambda g^2 (c - b))`.

    `g = -d / eta`; its square approximates the curvature. With windows longer than the paper's one step, `g`
    is the sum of the window's gradients, and its square grows with the square of the window: lower `lambda_`.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        learning_rate: learning rate `eta` of the inner optimizer, plain SGD, above 0.
        lambda_: strength of the compensation, at least 0; 0 gives `DOWNPOUR`.

    Reference: Zheng et al. 2017, algorithm 2 (DC-ASGD-c).
    """

    communication_window: int | None = 1
    learning_rate: float = 0.1
    lambda_: float = 0.04

    needs_pulled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "learning_rate", "(0, inf)")
        check_interval(self, "lambda_", "[0, inf)")

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        compensation = commit.movement(center)
        compensation *= message
        compensation *= message
        compensation *= self.lambda_ / self.learning_rate
        message -= compensation
        center += message
        return center
