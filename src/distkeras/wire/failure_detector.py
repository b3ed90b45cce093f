"""Detects workers that have been silent for too long."""

from __future__ import annotations

import threading
from collections.abc import Callable


class FailureDetector:
    """Records when each worker was last heard.

    Args:
        limit: seconds of silence after which a worker counts as lost.
        clock: returns seconds, from any starting point.
    """

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        self.interval = limit / 4
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._last: dict[int, float] = {}
        self._looked = clock()

    def heard(self, worker: int) -> None:
        """Record a message of `worker`."""
        with self._lock:
            self._last[worker] = self._clock()

    def hears(self, worker: int) -> bool:
        """Return whether `worker` is expected, and has not been silent for too long."""
        with self._lock:
            last = self._last.get(worker)
            return last is not None and self._clock() - last <= self._limit

    def forget(self, worker: int) -> None:
        """Expect no more messages of `worker`."""
        with self._lock:
            self._last.pop(worker, None)

    def silent(self) -> dict[int, float]:
        """Return the workers that were silent for too long, with their silence; call it every `interval`.

        Each worker is returned once, until it is heard again.
        """
        with self._lock:
            now = self._clock()
            pause, self._looked = now - self._looked, now
            if pause > self._limit / 2:  # This process itself was paused: messages may wait unread.
                self._last = dict.fromkeys(self._last, now)
                return {}
            lost = {worker: now - last for worker, last in self._last.items() if now - last > self._limit}
            for worker in lost:
                del self._last[worker]
            return lost
