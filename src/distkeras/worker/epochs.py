"""The epochs of a worker: where windows end, how long an epoch is, and when local state is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from distkeras.worker.minibatch import Minibatch

StateAt = Literal["never", "epochs", "commits"]


@dataclass(frozen=True)
class EpochPlan:
    """What the driver needs at the ends of epochs.

    Attributes:
        windows_end: end a window with each epoch of the worker, so that the center stands there exactly. For
            one worker.
        steps: minibatches of a worker's epoch; `None` for a pass over its rows. The epochs go on from pass to
            pass: where the rows end within an epoch, they begin again.
        state: when the worker sends its local state, without being asked: before the commit that brings it
            past the end of an epoch of its own, or before every commit, so that a replacement continues
            exactly.
        longest_window: most minibatches in a window; `None` for no limit.

    Raises:
        ValueError: a number is not positive, or `state` is none of these words.
    """

    windows_end: bool = False
    steps: int | None = None
    state: StateAt = "never"
    longest_window: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "longest_window"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` must be a positive integer, or None. Received: {name}={value!r}")
        if self.state not in ("never", "epochs", "commits"):
            raise ValueError(
                f"`state` must be 'never', 'epochs' or 'commits'. Received: state={self.state!r}"
            )

    def num_passes(self, num_epoch: int, a_pass: int) -> int:
        """Return the number of passes over the rows, of `a_pass` minibatches each, in `num_epoch` epochs."""
        return num_epoch if self.steps is None else -(-num_epoch * self.steps // max(1, a_pass))

    def minibatches(self, a_pass: int) -> int:
        """Return the number of minibatches of an epoch if a pass over the rows has `a_pass`."""
        return a_pass if self.steps is None else self.steps


class Passes(Protocol):
    """A source of minibatches, pass by pass: see `distkeras.worker.feed.Feed.epoch`."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]: ...


class EpochFeed:
    """Epochs of a fixed number of minibatches, from passes of another number.

    Args:
        passes: the minibatches of each pass.
        a_pass: number of minibatches in a pass; without any, there are no epochs either.
        steps: number of minibatches in an epoch.
    """

    def __init__(self, passes: Passes, a_pass: int, steps: int) -> None:
        self._passes = passes
        self._a_pass = a_pass
        self._steps = steps
        self._open: Iterator[Minibatch] | None = None
        self._next = 0  # Number of the next minibatch of the open pass, counted from the first pass on.

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. Only one epoch is read at a time."""
        first, end = epoch * self._steps + start, (epoch + 1) * self._steps
        if first != self._next:
            self._open, self._next = None, first
        while self._a_pass and self._next < end:
            # A pass stays open from epoch to epoch: its rows may still arrive.
            if self._open is None:
                self._open = self._passes.epoch(*divmod(self._next, self._a_pass))
            minibatch = next(self._open, None)
            if minibatch is None:
                self._open = None
                continue
            self._next += 1
            yield minibatch
