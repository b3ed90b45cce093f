"""The common part of the elastic algorithms of Zhang et al., NeurIPS 2015."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class Elastic(Algorithm):
    """Abstract: a spring between each worker and the center, applied in one atomic step.

    `E = alpha (x - c); x <- x - E; c <- c + E`. The worker sends `x` and the server answers with the elastic
    force `E`: `c + x` is conserved, and stability does not depend on the number of workers. By default
    `alpha = 0.9 / N`; with `rho` it is `learning_rate * rho`.
    """

    communication_window: int | None = 32
    rho: float | None = None
    learning_rate: float = 0.1
    alpha: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "learning_rate", "(0, inf)")
        if self.alpha is not None:
            check_interval(self, "alpha", "(0, 1]")
        if self.rho is None:
            return
        check_interval(self, "rho", "(0, inf)")
        alpha = self.learning_rate * self.rho
        if alpha > 1:
            raise ValueError(
                f"`learning_rate * rho` of {self.name} must not exceed 1: at 1 an exchange swaps worker and "
                "center, above 1 it drives them apart. Lower `rho`. "
                f"Received: learning_rate={self.learning_rate!r}, rho={self.rho!r}"
            )
        if self.alpha is not None and self.alpha != alpha:
            raise ValueError(
                f"`rho` of {self.name} is another way to set `alpha = learning_rate * rho`: pass only one of "
                f"the two. Received: alpha={self.alpha!r}, learning_rate={self.learning_rate!r}, "
                f"rho={self.rho!r}"
            )
        object.__setattr__(self, "alpha", alpha)

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        return local.copy()

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        message -= center
        message *= 0.9 / commit.num_workers if self.alpha is None else self.alpha
        center += message
        return message

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        return local - reply
