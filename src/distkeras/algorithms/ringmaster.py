"""Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity, Maranjyan et al., ICML 2025."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distkeras.algorithms.base import DISCARD, TAKE, Algorithm, Commit, State, Vector, Verdict
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class Ringmaster(Algorithm):
    """Adds a delta unless it is too stale: `c <- c + d` if `tau < R`; otherwise discards it.

    In both cases the worker continues from the center. A discarded commit does not count: it makes no other
    worker staler, so the server cannot discard every commit for ever. A worker that stalls loses its window.

    The paper's threshold is `R = max(1, ceil(sigma^2 / eps))` with the variance `sigma^2` of a minibatch's
    gradient and the target `eps` of the squared norm of the gradient, for windows of one step. Give
    `variance` and `accuracy` for it.

    With `stop=True`, a worker whose delay reaches R drops its window at once, and trains its rows again from
    the center: the paper's algorithm 5. On Spark it hears of it by its next heartbeat and stops between two
    minibatches, so this is for windows of many seconds; what the dropped steps did to the Keras optimizer's
    own state stays. Each dropped window is one more discarded commit, of no rows.

    Args:
        communication_window: minibatch steps between two exchanges of one worker; 1 in the paper.
        delay_threshold: `R`, in commits, at least 1; by default twice the number of workers, so that only
            stragglers lose windows (the mean staleness is one less than the number of workers).
        variance: `sigma^2`, at least 0, with `accuracy` in place of `delay_threshold`.
        accuracy: `eps`, above 0.
        stop: whether a worker drops a window that has become too stale. It keeps the window's minibatches in
            memory.

    Reference: Maranjyan et al. 2025 (2501.16168), algorithm 4, and with `stop` algorithm 5.
    """

    communication_window: int | None = 5
    delay_threshold: float | None = None
    variance: float | None = None
    accuracy: float | None = None
    stop: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, interval in (
            ("delay_threshold", "[1, inf]"),
            ("variance", "[0, inf)"),
            ("accuracy", "(0, inf)"),
        ):
            if getattr(self, field) is not None:
                check_interval(self, field, interval)
        given = [self.variance is not None, self.accuracy is not None]
        fits = all(given) and self.delay_threshold is None and self.communication_window == 1
        if any(given) and not fits:
            raise ValueError(
                "`variance` and `accuracy` of Ringmaster together determine the threshold for windows of one "
                f"step. Pass both, `communication_window=1`, and no `delay_threshold`. Received: {self!r}"
            )
        if not isinstance(self.stop, bool) or (self.stop and self.communication_window is None):
            raise ValueError(
                "`stop` of Ringmaster must be True or False, and needs a `communication_window` in steps: "
                "workers keep a window's minibatches in memory. "
                f"Received: stop={self.stop!r}, communication_window={self.communication_window!r}"
            )

    @property
    def stops(self) -> bool:
        return self.stop

    def threshold(self, num_workers: int) -> float:
        """Return `R`, the staleness from which a commit of one of `num_workers` is discarded."""
        if self.variance is not None and self.accuracy is not None:
            return max(1, math.ceil(self.variance / self.accuracy))
        return self.delay_threshold or 2 * num_workers

    def decide(self, commit: Commit) -> Verdict:
        return DISCARD if commit.staleness >= self.threshold(commit.num_workers) else TAKE

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
