"""How many workers may train at once where workers come and go."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.algorithms import Algorithm, Sequential

SHARES = 4
"""Shares of the rows for each worker that there may be."""


@dataclass(frozen=True)
class Elastic:
    """Least and most workers of an elastic training.

    Its rows lie in shares, more than there are workers. A worker trains one share for one epoch, then another
    one. The center knows the shares: each has its place, and its commits have numbers of their own.

    Attributes:
        min_workers: workers that must be there before any of them trains.
        max_workers: most workers that train at one time.

    Raises:
        ValueError: a number is not a positive integer, or the least is above the most.
    """

    min_workers: int
    max_workers: int

    def __post_init__(self) -> None:
        for name in ("min_workers", "max_workers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
        if self.min_workers > self.max_workers:
            raise ValueError(
                "`min_workers` must be at most `max_workers`. "
                f"Received: min_workers={self.min_workers}, max_workers={self.max_workers}"
            )

    @property
    def num_shares(self) -> int:
        """Number of shares of the rows."""
        return SHARES * self.max_workers


def check_elastic(algorithm: Algorithm) -> None:
    """Raise ValueError if an algorithm needs a fixed number of workers."""
    if algorithm.synchronous:
        raise ValueError(
            f"{algorithm.name} is synchronous: a round needs every worker. Elastic training needs "
            "an asynchronous algorithm, such as DOWNPOUR, ADAG, DynSGD or AEASGD. "
            f"Received: algorithm={algorithm!r} with `max_workers`"
        )
    if isinstance(algorithm, Sequential):
        raise ValueError(
            f"{algorithm.name} trains each model with one worker. Elastic training needs several workers "
            f"for one model. Received: algorithm={algorithm!r} with `max_workers`"
        )
    if getattr(algorithm, "period", 1) is None:
        raise ValueError(
            f"The `period` of {algorithm.name} is by default the number of workers, which may change within "
            f"a period. Set it to a number. Received: algorithm={algorithm!r} with `max_workers`"
        )
