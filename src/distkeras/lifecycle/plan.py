"""The epochs of one model's training, and the reason to end: what a conductor works with."""

from __future__ import annotations

from dataclasses import dataclass

from distkeras.center.orders import FOREVER
from distkeras.lifecycle.result import Reason


@dataclass(frozen=True)
class Plan:
    """The epochs of one model's training.

    Attributes:
        rows: rows of the first epochs, all workers together, after which they begin again.
        num_epoch: number of epochs that the center trains.
        first: number of the first of them, for callbacks and history.
        holds: whether the workers wait at the end of an epoch for what the driver decides.
        by_steps: whether they also wait after each window: for callbacks that look at batches.
        worker: the worker whose local state the model takes.
    """

    rows: tuple[int, ...]
    num_epoch: int
    first: int = 0
    holds: bool = False
    by_steps: bool = False
    worker: int = 0

    def end_of(self, epoch: int) -> int:
        """Return the rows of the center at the end of its `epoch`."""
        rounds, rest = divmod(epoch + 1, len(self.rows))
        return rounds * sum(self.rows) + sum(self.rows[:rest])

    def is_last(self, epoch: int) -> bool:
        """Return whether `epoch` of the center is its last one."""
        return epoch >= self.num_epoch - 1

    def until(self, epoch: int, samples: int) -> int:
        """Return with how many rows of the center workers wait in `epoch`; it has `samples` now."""
        if self.by_steps:
            return samples + 1
        return FOREVER if self.is_last(epoch) or not self.holds else self.end_of(epoch)


@dataclass
class Stop:
    """Why a training is to end; without a reason it goes on."""

    reason: Reason | None = None
    detail: str = ""

    def set(self, reason: Reason, detail: str) -> None:
        """Set the reason, unless there is one. Any thread may call this."""
        if self.reason is None:
            self.detail, self.reason = detail, reason
