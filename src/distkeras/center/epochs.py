"""Epochs of a center: they end with its rows, whatever the workers' own epochs are."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distkeras.center.config import CenterConfig
from distkeras.center.requests import Exchange
from distkeras.events import EpochEnded

_FLOAT = np.dtype("<f8")


@dataclass
class Sums:
    """What the windows of an epoch add up to.

    Attributes:
        steps: minibatches.
        windows: number of windows.
        staleness: sum of their staleness.
        states: states of Keras's metrics, little-endian float64; `None` before the first.
        alike: whether every window with minibatches had as many states as the first.
    """

    steps: int = 0
    windows: int = 0
    staleness: int = 0
    states: np.ndarray[Any, Any] | None = None
    alike: bool = True

    def add(self, window: Exchange, staleness: int) -> None:
        """Add one window."""
        steps, _ = window.window
        if window.states or steps:  # The last windows of fragments may have trained nothing.
            self._add_states(np.frombuffer(window.states, _FLOAT))
        self.steps += steps
        self.windows += 1
        self.staleness += staleness

    def _add_states(self, states: np.ndarray[Any, Any]) -> None:
        if self.states is None:
            self.states = states.copy()
        elif self.states.size == states.size:
            self.states += states
        else:
            self.alike = False

    @property
    def state_bytes(self) -> bytes:
        """The states; empty if there are none, or not alike."""
        return self.states.tobytes() if self.states is not None and self.alike else b""

    def saved(self) -> dict[str, Any]:
        """Return the sums as plain JSON."""
        states = None if self.states is None else base64.b64encode(self.states.tobytes()).decode()
        return {
            "steps": self.steps,
            "windows": self.windows,
            "staleness": self.staleness,
            "states": states,
            "alike": self.alike,
        }

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Sums:
        """Return the sums that were `saved`."""
        states = saved["states"]
        found = None if states is None else np.frombuffer(base64.b64decode(states), _FLOAT).copy()
        return cls(**saved | {"states": found})


class Epochs:
    """Counts the rows of a center, and adds up the windows of each epoch.

    A window belongs to one epoch whole: to the one that had not ended before it. The windows are added in
    the order in which the center decided on them, so the sums do not depend on threads. The fragments of a
    center, and its regions, share one count.

    Args:
        config: settings of the center.
        clock: tells the time of events.
        member: index of the member of an ensemble, for the events.
        others_train: whether workers of other centers that share the count still train.

    Attributes:
        counts: whether the settings have epochs. If not, nothing is counted.
        samples: rows of the center so far.
        last: the last epoch that has ended; `None` before the first.
    """

    def __init__(
        self,
        config: CenterConfig,
        clock: Callable[[], float],
        member: int = 0,
        others_train: Callable[[], bool] = lambda: False,
    ) -> None:
        self.counts = config.epoch_rows is not None
        self.samples = 0
        self.last: EpochEnded | None = None
        self._config, self._clock, self._member = config, clock, member
        self._others_train = others_train
        self._lock = threading.Lock()
        self._epoch = 0
        self._sums = Sums()
        self._told = 0  # Windows of the open epoch when it was reported as not whole.

    def add(
        self, windows: Sequence[Exchange], staleness: Sequence[int], number: int, num_updates: int
    ) -> tuple[EpochEnded, ...]:
        """Add the `windows` of one commit, and return the events of the epochs that it ends, in order.

        Args:
            windows: one window, or those of a round.
            staleness: the staleness of each.
            number: number of the commit.
            num_updates: updates of the center after it.
        """
        if not self.counts:
            return ()
        with self._lock:
            for window, behind in zip(windows, staleness, strict=True):
                self.samples += window.window[1]
                self._sums.add(window, behind)
            ended = []
            while self.samples >= self._config.epoch_end(self._epoch):
                ended.append(self._ended(number, num_updates, whole=True))
                self._epoch, self._sums, self._told = self._epoch + 1, Sums(), 0
            return tuple(ended)

    def left(self, number: int, num_updates: int) -> tuple[EpochEnded, ...]:
        """Return the event of an epoch whose rows are not complete, when every worker has left.

        If training goes on later, so does the epoch, which is reported again at its end.
        """
        if self._others_train():
            return ()
        with self._lock:
            if self._sums.windows == self._told:  # None, or none since the last time.
                return ()
            self._told = self._sums.windows
            return (self._ended(number, num_updates, whole=False),)

    def saved(self) -> dict[str, Any]:
        """Return the counts as plain JSON, for snapshots."""
        with self._lock:
            last = None
            if self.last is not None:
                last = asdict(self.last) | {"states": base64.b64encode(self.last.states).decode()}
            return {"samples": self.samples, "sums": self._sums.saved(), "told": self._told, "last": last}

    def restore(self, saved: dict[str, Any] | None, samples: int) -> None:
        """Continue from what was `saved`; from `samples` rows if the snapshot is older than epochs."""
        if not self.counts:
            return
        with self._lock:
            self.samples = samples if saved is None else saved["samples"]
            self._epoch = self._config.epochs_in(self.samples)
            if saved is not None:
                self._sums, self._told = Sums.restored(saved["sums"]), saved["told"]
                if (last := saved["last"]) is not None:
                    self.last = EpochEnded(**last | {"states": base64.b64decode(last["states"])})

    def _ended(self, number: int, num_updates: int, *, whole: bool) -> EpochEnded:
        sums = self._sums
        self.last = EpochEnded(
            epoch=self._epoch,
            samples=self.samples,
            number=number,
            num_updates=num_updates,
            steps=sums.steps,
            states=sums.state_bytes,
            windows=sums.windows,
            staleness_mean=sums.staleness / max(1, sums.windows),
            member=self._member,
            whole=whole,
            timestamp=self._clock(),
        )
        return self.last
