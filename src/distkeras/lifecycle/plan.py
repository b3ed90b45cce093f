"""The epochs of one model's training, the running job, and the reason to end: what a conductor works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from distkeras.center.orders import FOREVER
from distkeras.lifecycle.result import Reason

if TYPE_CHECKING:
    from distkeras.algorithms import Vector
    from distkeras.center.requests import Kind
    from distkeras.worker.final_state import FinalState


class Control(Protocol):
    """The running job, as one model's conductor sees it."""

    def order(self, **changes: Any) -> None:
        """Change the orders in force for the workers of the model."""

    def keep(self, samples: int) -> None:
        """Ask for a copy of the center as it will be with `samples` rows."""

    def pull(self, kept: int = 0) -> Vector:
        """Return the center, or its copy for `kept` rows, in memory of the caller's own."""

    def write(self, center: Vector) -> None:
        """Put `center` in place of the center while all workers wait."""

    def report(self, worker: int, kind: Kind, tag: int) -> bytes | None:
        """Return what `worker` has reported; `None` if the center has it no longer."""

    def state_of(self, worker: int, tag: int) -> FinalState | None:
        """Return the local state that `worker` has reported with its commit `tag`, if there is one."""


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
