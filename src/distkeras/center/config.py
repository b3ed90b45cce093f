"""Settings of a center, in one record that the trainer sends to the server."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from distkeras.algorithms import Algorithm
from distkeras.center.bad_updates import RAISE, BadUpdates
from distkeras.center.layout import tensors_in, trainable_in


@dataclass(frozen=True)
class CenterConfig:
    """All settings that decide how messages change a center.

    Attributes:
        algorithm: the algorithm, fitted to the number of workers.
        num_workers: workers of the job, numbered from 0.
        num_trainable: leading elements that the algorithm updates; the rest are averaged. `None` for all.
        quorum: messages that complete a synchronous round; `None` for one from every live worker. A message
            that arrives after its round counts in the next one.
        grace: seconds for which a round stays open after its quorum; less if every live worker has sent.
        overlap: whether workers train a window while the previous one is exchanged.
        bad_updates: what to do with messages that are not finite or too large.
        without_lost: whether synchronous rounds leave out lost workers.
        independent: whether every worker has a center of its own: the members of an ensemble.
        dtype: data type of the center and of the messages.
        tensors: sizes of the model's trainable tensors, in order, for algorithms that need them. Empty: all
            trainable elements are one tensor.
        layout: fingerprint of the weights' layout: the center refuses a worker with another one.

    Raises:
        ValueError: there is no worker; the quorum is not in 1..num_workers, or is for an asynchronous
            algorithm; or the grace is negative, or has no quorum.
    """

    algorithm: Algorithm
    num_workers: int = 1
    num_trainable: int | None = None
    quorum: int | None = None
    grace: float = 0.0
    overlap: bool = False
    bad_updates: BadUpdates = RAISE
    without_lost: bool = False
    independent: bool = False
    dtype: str = "float32"
    layout: str = ""
    tensors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"Expected at least one worker. Received: num_workers={self.num_workers}")
        if self.quorum is not None and not (
            self.algorithm.synchronous and 1 <= self.quorum <= self.num_workers
        ):
            raise ValueError(
                "`quorum` must be between 1 and `num_workers`, and is only for synchronous algorithms. "
                f"Received: quorum={self.quorum}, num_workers={self.num_workers}, "
                f"algorithm={self.algorithm!r}"
            )
        self._check_grace()
        object.__setattr__(self, "algorithm", self.algorithm.for_workers(self.num_workers))

    def _check_grace(self) -> None:
        grace = self.grace
        number = isinstance(grace, int | float) and not isinstance(grace, bool)
        if not number or not 0 <= grace < math.inf or (grace and self.quorum is None):
            raise ValueError(
                "`grace` must be seconds, at least 0 and finite, and needs a `quorum`: without one, a round "
                f"waits for every live worker. Received: grace={grace!r}, quorum={self.quorum}"
            )

    def trainable_of(self, size: int) -> int:
        """Return how many of `size` elements the algorithm updates."""
        return size if self.num_trainable is None else self.num_trainable

    def whole_tensors(self, size: int) -> tuple[int, ...]:
        """Return the sizes of the tensors that the algorithm needs whole; empty if it needs none.

        Raises:
            ValueError: the tensors do not make up the trainable ones of `size` elements.
        """
        if not self.algorithm.needs_tensors:
            return ()
        num_trainable = self.trainable_of(size)
        if self.tensors and sum(self.tensors) != num_trainable:
            raise ValueError(
                f"Expected the sizes of tensors with {num_trainable} elements together. "
                f"Received: tensors={self.tensors}"
            )
        return self.tensors or (num_trainable,)

    def part(self, low: int, high: int) -> CenterConfig:
        """Return the configuration of a server with the elements from `low` to `high` (excluded)."""
        tensors = tensors_in(low, high, self.tensors)
        if self.num_trainable is None:
            return replace(self, tensors=tensors)
        num_trainable = trainable_in(low, high, self.num_trainable)
        return replace(self, num_trainable=num_trainable, tensors=tensors)

    def member(self) -> CenterConfig:
        """Return the configuration of one worker's own center."""
        return replace(self, num_workers=1, independent=False)
