"""Deep Learning with Elastic Averaging SGD, Zhang, Choromanska and LeCun, NeurIPS 2015 (1412.6651)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from distkeras.algorithms.base import Algorithm, Commit, State, Vector
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class EASGD(Algorithm):
    """Synchronous elastic averaging: `x_i <- x_i - alpha (x_i - c); c <- c + alpha sum_i (x_i - c)`.

    Both use the old values: the server answers every worker of the round with the previous center. In a round
    of fewer workers (a quorum, or after some have left) the center moves less.

    dist-keras documented it but never implemented it.

    Args:
        communication_window: minibatch steps between two rounds.
        alpha: moving rate, in (0, 1]; 0.9 over the number of workers by default.

    Reference: Zhang et al. 2015, section 3 and the stability analysis in its supplement.
    """

    communication_window: int | None = 10
    alpha: float | None = None

    synchronous: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None:
            check_interval(self, "alpha", "(0, 1]")

    def for_workers(self, num_workers: int) -> EASGD:
        return self if self.alpha is not None else replace(self, alpha=0.9 / num_workers)

    def commit(self, local: Vector, anchor: Vector, num_steps: int) -> Vector:
        return local.copy()

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        before = center.copy()
        message -= center
        message *= self._moving_rate * commit.num_workers
        center += message
        return before

    def adopt(self, local: Vector, message: Vector, reply: Vector) -> Vector:
        # Uses the message as the center received it: with compression, it differs from `local`.
        force = message - reply
        force *= self._moving_rate
        return local - force

    @property
    def _moving_rate(self) -> float:
        if self.alpha is None:
            raise ValueError(
                "`alpha` of EASGD depends on the number of workers: pass it, or call "
                f"`algorithm.for_workers(num_workers)` first. Received: {self!r}"
            )
        return self.alpha
