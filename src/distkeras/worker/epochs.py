"""The epochs of a worker: where windows end, how long an epoch is, and when local state is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from distkeras.worker.minibatch import Minibatch

StateAt = Literal["never", "epochs", "seconds", "commits"]


@dataclass(frozen=True)
class EpochPlan:
    """What the driver needs at the ends of epochs.

    Attributes:
        windows_end: end a window with each epoch of the worker, so that the center stands there exactly. For
            one worker.
        steps: minibatches of a worker's epoch; `None` for a pass over its rows. The epochs go on from pass to
            pass: where the rows end within an epoch, they begin again.
        within_pass: an epoch ends with the pass in which it has begun, as in `keras.Model.fit`, also before
            it has `steps` minibatches. For one worker: the passes of several may differ in length.
        state: when the worker sends its local state, without being asked: before the commit that brings it
            past the end of an epoch of its own ("epochs"); also every few seconds and wherever the windows
            since the last state could not be repeated ("seconds"), so that a replacement repeats these and
            continues exactly; or before every commit.
        longest_window: most minibatches in a window; `None` for no limit.

    Raises:
        ValueError: a number is not positive, or `state` is none of these words.
    """

    windows_end: bool = False
    steps: int | None = None
    state: StateAt = "never"
    longest_window: int | None = None
    within_pass: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "longest_window"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"`{name}` must be a positive integer, or None. Received: {name}={value!r}")
        if self.state not in get_args(StateAt):
            raise ValueError(f"`state` must be one of {get_args(StateAt)}. Received: state={self.state!r}")

    @property
    def is_exact(self) -> bool:
        """Whether a replacement continues exactly."""
        return self.state in ("seconds", "commits")

    def num_passes(self, num_epoch: int, a_pass: int) -> int:
        """Return the number of passes over the rows, of `a_pass` minibatches each, in `num_epoch` epochs."""
        return -(-self.begin_of(num_epoch, a_pass) // max(1, a_pass))

    def begin_of(self, epoch: int, a_pass: int) -> int:
        """Return the number of minibatches before an epoch if a pass over the rows has `a_pass`."""
        if self.steps is None:
            return epoch * a_pass
        if not self.within_pass:
            return epoch * self.steps
        passes, place = divmod(epoch, max(1, -(-a_pass // self.steps)))
        return passes * a_pass + place * self.steps

    def ended_by(self, minibatches: int, a_pass: int) -> int:
        """Return the number of epochs that end with or before so many minibatches."""
        a_pass = max(1, a_pass)
        if self.steps is None:
            return minibatches // a_pass
        if not self.within_pass:
            return minibatches // self.steps
        passes, rest = divmod(minibatches, a_pass)
        return passes * -(-a_pass // self.steps) + rest // self.steps


class Passes(Protocol):
    """A source of minibatches, pass by pass: see `distkeras.worker.feed.Feed.epoch`."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]: ...


class EpochFeed:
    """Epochs of the minibatches of passes, of another number than a pass has.

    Args:
        passes: the minibatches of each pass.
        a_pass: number of minibatches in a pass; without any, there are no epochs either.
        plan: where the epochs begin.
    """

    def __init__(self, passes: Passes, a_pass: int, plan: EpochPlan) -> None:
        self._passes = passes
        self._a_pass = a_pass
        self._plan = plan
        self._open: Iterator[Minibatch] | None = None
        self._next = 0  # Number of the next minibatch of the open pass, counted from the first pass on.

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. Only one epoch is read at a time."""
        begin, end = (self._plan.begin_of(each, self._a_pass) for each in (epoch, epoch + 1))
        first = begin + start
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
