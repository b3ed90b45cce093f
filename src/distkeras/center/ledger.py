"""What is known of every worker's commits, and what has happened: the part of the center that counts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from distkeras.center.messages import MAX_PAGE, Polled
from distkeras.events import Event


@dataclass(frozen=True, slots=True)
class Line:
    """A worker's line of the ledger: it makes a commit count exactly once.

    Attributes:
        sequence: number of its last commit.
        epoch: epoch of the minibatch after it.
        step: index in that epoch of that minibatch.
        samples: rows behind all its commits.
        left: whether it has said that it was its last.
    """

    sequence: int = 0
    epoch: int = 0
    step: int = 0
    samples: int = 0
    left: bool = False


@dataclass
class Place:
    """Where a worker stands. Its line changes under its lock, together with the center.

    Attributes:
        lock: held while a request of the worker is handled.
        line: of the ledger.
        joined: whether this very center has seen it join.
        lost: whether nothing has been heard of it for too long.
        missed: whether the driver waits for a sign of life of it: it was lost, or the server began anew.
        refused: its windows, up to the last one, that were refused one after the other.
    """

    lock: threading.RLock
    line: Line = Line()
    joined: bool = False
    lost: bool = False
    missed: bool = False
    refused: int = 0


@dataclass
class Journal:
    """The events since the driver last asked; what it has seen is dropped."""

    clock: Callable[[], float]
    num_updates: int = 0
    _first: int = 0
    _events: list[Event] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def next(self) -> int:
        """Number of the event that comes next."""
        return self._first + len(self._events)

    def add(self, *events: Event, updates: int = 0) -> None:
        """Append `events` and count `updates` of the center."""
        with self._lock:
            self._events.extend(events)
            self.num_updates += updates

    def read(self, since: int) -> Polled:
        """Return a page of the events from number `since` on, and forget those before."""
        with self._lock:
            seen = min(max(0, since - self._first), len(self._events))
            del self._events[:seen]
            self._first += seen
            return self._unread(MAX_PAGE)

    def unread(self) -> Polled:
        """Return the events that the driver may not have seen, and forget none."""
        with self._lock:
            return self._unread()

    def restore(self, kept: Polled, since: int) -> None:
        """Go on from the events `kept` in a snapshot, for a driver that has seen those before `since`.

        Number `since` is the next that it reads, whatever it had seen of what the snapshot does not have.
        """
        with self._lock:
            first = kept.next - len(kept.events)
            self._events = kept.events[max(0, since - first) :]
            self._first = since
            self.num_updates = kept.num_updates

    def _unread(self, limit: int | None = None) -> Polled:
        events = self._events[:limit]
        return Polled(events, self._first + len(events), self.num_updates)
