"""Ringmaster ASGD: The First Asynchronous SGD with Optimal Time Complexity, Maranjyan et al., ICML 2025."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms.base import DISCARD, TAKE, Algorithm, Commit, State, Vector, Verdict
from distkeras.algorithms.intervals import check_interval


@dataclass(frozen=True)
class Ringmaster(Algorithm):
    """Adds a delta unless it is too stale: `c <- c + d` if `tau < R`; otherwise discards it.

    In both cases the worker continues from the center. A discarded commit does not count: it makes no other
    worker staler, so the server cannot discard every commit for ever. A worker that stalls loses its window.

    Args:
        communication_window: minibatch steps between two exchanges of one worker.
        delay_threshold: `R`, in commits, at least 1; by default twice the number of workers, so that only
            stragglers lose windows (the mean staleness is one less than the number of workers).

    Reference: Maranjyan et al. 2025 (2501.16168), algorithm 4.
    """

    communication_window: int | None = 5
    delay_threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delay_threshold is not None:
            check_interval(self, "delay_threshold", "[1, inf]")

    def decide(self, commit: Commit) -> Verdict:
        return DISCARD if commit.staleness >= (self.delay_threshold or 2 * commit.num_workers) else TAKE

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        center += message
        return center
