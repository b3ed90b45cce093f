"""What decides a center: one record, which travels whole from the trainer to the server."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkeras.algorithms import Algorithm
from distkeras.center.bad_updates import RAISE, BadUpdates
from distkeras.center.layout import trainable_in


@dataclass(frozen=True)
class CenterConfig:
    """What decides what becomes of a center's first vector, besides the messages themselves.

    Attributes:
        algorithm: the rule, fitted to the number of workers.
        num_workers: workers of the job, numbered from 0.
        num_trainable: leading elements that the rule governs; the rest are averaged. `None`: all.
        quorum: messages that complete a synchronous round; `None`: one of every live worker. A message that
            comes after its round counts in the next.
        overlap: workers train a window while the one before is exchanged.
        bad_updates: what becomes of messages that are not finite, or too large.
        without_lost: complete synchronous rounds without those workers that are lost.
        independent: every worker has a center of its own: the members of an ensemble.
        dtype: of the center and of the messages.
        layout: names what lies where in the center: a worker with another layout is refused.

    Raises:
        ValueError: no worker, a quorum for an asynchronous rule or not in 1..num_workers.
    """

    algorithm: Algorithm
    num_workers: int = 1
    num_trainable: int | None = None
    quorum: int | None = None
    overlap: bool = False
    bad_updates: BadUpdates = RAISE
    without_lost: bool = False
    independent: bool = False
    dtype: str = "float32"
    layout: str = ""

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"Expected at least one worker. Received: num_workers={self.num_workers}")
        if self.quorum is not None and not (
            self.algorithm.synchronous and 1 <= self.quorum <= self.num_workers
        ):
            raise ValueError(
                "`quorum` must lie between 1 and `num_workers`, and belongs to synchronous rules alone. "
                f"Received: quorum={self.quorum}, num_workers={self.num_workers}, "
                f"algorithm={self.algorithm!r}"
            )
        object.__setattr__(self, "algorithm", self.algorithm.for_workers(self.num_workers))

    def trainable_of(self, size: int) -> int:
        """Return how many of `size` elements the rule governs."""
        return size if self.num_trainable is None else self.num_trainable

    def part(self, low: int, high: int) -> CenterConfig:
        """Return the configuration of the elements from `low` up to `high`: one shard, or one server's."""
        if self.num_trainable is None:
            return self
        return replace(self, num_trainable=trainable_in(low, high, self.num_trainable))

    def member(self) -> CenterConfig:
        """Return the configuration of the center of one worker."""
        return replace(self, num_workers=1, independent=False)
