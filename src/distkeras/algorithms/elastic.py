"""The common part of the elastic algorithms of Zhang et al., NeurIPS 2015."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class Elastic(Algorithm):
    """Abstract: a spring between each worker and the center, applied in one atomic step.

    `E = alpha (x - c); x <- x - E; c <- c + E` with `alpha = learning_rate * rho`. The worker sends `x` and
    the server answers with the elastic force `E`: `c + x` is conserved, and stability does not depend on the
    number of workers.
    """

    communication_window: int | None = 32
    rho: float = 5.0
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self, "rho", "(0, inf)")
        check_interval(self, "learning_rate", "(0, inf)")
        if self.alpha > 1:
            raise ValueError(
                f"`learning_rate * rho` of {self.name} must not exceed 1: at 1 an exchange swaps worker and "
                "center, above 1 it drives them apart. Lower `rho`. "
                f"Received: learning_rate={self.learning_rate!r}, rho={self.rho!r}"
            )

    @property
    def alpha(self) -> float:
        """Moving rate: the fraction of the distance between worker and center that an exchange moves each."""
        return self.learning_rate * self.rho

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        return local.copy()

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        message -= center
        message *= self.alpha
        center += message
        return message

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        return local - reply
