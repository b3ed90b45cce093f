"""The events of a center that the driver has not read yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from distkeras.center.answers import MAX_PAGE, MAX_PAGE_BYTES, Polled
from distkeras.events import (
    Event,
    EventsDropped,
    RoundClosed,
    ServerRestored,
    ServerStatus,
    Window,
    WorkerJoined,
)

MAX_BYTES, RESERVED_BYTES = 64 * 2**20, 16 * 2**20
"""Memory for unread events, and additional memory for those other than windows."""
EVENT_BYTES, METRIC_BYTES, CHARACTER_BYTES = 500, 100, 4


_FREQUENT = (Window, ServerStatus)
"""Events that are dropped first."""


@dataclass
class EventLog:
    """The events that the driver has not read. Reading drops those before.

    A driver may pause for hours. If the log is full, it drops windows and statuses first, and the driver
    receives the number of dropped events.

    Attributes:
        clock: tells the time of events.
        num_updates: updates of the center.
        changes: changes of the center so far.
        windows: whether anybody reads the windows of an asynchronous algorithm. In a simulation that is not
            shown they are a tenth of a small commit.
    """

    clock: Callable[[], float]
    num_updates: int = 0
    changes: int = 0
    windows: bool = True
    _first: int = 0
    _events: list[Event] = field(default_factory=list)
    _bytes: int = 0
    _dropped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def next(self) -> int:
        """Number of the next event."""
        return self._first + len(self._events)

    def add(self, *events: Event) -> None:
        """Append `events`."""
        self.commit(events, 0)

    def commit(self, events: Sequence[Event], updates: int) -> None:
        """Append `events` and add `updates` to the center's updates; `changes` counts dropped events, too."""
        with self._lock:
            self.num_updates += updates
            self.changes += len(events)
            for event in events:
                self._append(event)

    def add_status(self, status: ServerStatus) -> None:
        """Append how the server does. That is no change of the center."""
        with self._lock:
            self._append(status)

    def touch(self) -> None:
        """Count a change that no event tells of, so that the next snapshot is not left out."""
        with self._lock:
            self.changes += 1

    def read(self, since: int) -> Polled:
        """Return a page of the events from number `since` on; drop the earlier ones."""
        with self._lock:
            seen = min(max(0, since - self._first), len(self._events))
            self._bytes -= sum(map(size_of, self._events[:seen]))
            del self._events[:seen]
            self._first += seen
            if self._dropped and self._bytes < MAX_BYTES // 2:
                dropped, self._dropped = self._dropped, 0
                self._append(EventsDropped(dropped, self.clock()))
            return self._unread(self._page())

    def unread(self) -> Polled:
        """Return the events that the driver may not have read; drop none."""
        with self._lock:
            return self._unread()

    def restore(self, kept: Polled, since: int) -> None:
        """Continue with the events `kept` in a snapshot, for a driver that has read those before `since`.

        The driver reads number `since` next, even if it had read events that are not in the snapshot.
        """
        with self._lock:
            first = kept.next - len(kept.events)
            self._events = kept.events[max(0, since - first) :]
            self._bytes = sum(map(size_of, self._events))
            self._first = since
            self.num_updates = kept.num_updates

    def _append(self, event: Event) -> None:
        size = size_of(event)
        if self._bytes + size > MAX_BYTES + (0 if isinstance(event, _FREQUENT) else RESERVED_BYTES):
            self._dropped += 1
            return
        self._events.append(event)
        self._bytes += size

    def _page(self) -> int:
        """Return how many events fit into one answer."""
        sizes = accumulate(map(size_of, self._events[:MAX_PAGE]))
        return max(1, sum(size <= MAX_PAGE_BYTES for size in sizes))

    def _unread(self, limit: int | None = None) -> Polled:
        events = self._events[:limit]
        return Polled(events, self._first + len(events), self.num_updates)


def size_of(event: Event) -> int:
    """Return the approximate memory of `event` in bytes, never less than its size in a frame."""
    if isinstance(event, Window):
        names = event.metrics
        if not names:
            return EVENT_BYTES
        return EVENT_BYTES + METRIC_BYTES * len(names) + CHARACTER_BYTES * sum(map(len, names))
    if isinstance(event, ServerRestored):
        return EVENT_BYTES + METRIC_BYTES * len(event.commits)
    if isinstance(event, RoundClosed):
        return EVENT_BYTES + METRIC_BYTES * (len(event.workers) + len(event.without))
    text: str = getattr(event, "error", "") or getattr(event, "reason", "")
    if isinstance(event, WorkerJoined) and (about := event.about) is not None:
        text = "".join((about.host, about.executor, about.backend, about.device))
    return EVENT_BYTES + CHARACTER_BYTES * len(text)
