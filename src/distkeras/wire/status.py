"""Tells once a second how a server does."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence

from distkeras.center import AnyCenter, Regional
from distkeras.center.follower import Follower
from distkeras.center.outer import Outer
from distkeras.events import ServerStatus
from distkeras.wire.traffic import Traffic

SECONDS = 1.0
"""Seconds between two statuses."""
NORM_SHARE = 0.01
"""Most part of the time that goes to the norm of the center."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


class StatusWatch:
    """Adds a `ServerStatus` to the events of a center once a second.

    Args:
        center: the center.
        server: index of the server.
        traffic: returns what its connections have carried, and how many are open.
    """

    def __init__(
        self, center: AnyCenter | Outer | Follower, server: int, traffic: Callable[[], tuple[Traffic, int]]
    ) -> None:
        self._center, self._server, self._traffic = center, server, traffic
        self._seconds: list[float] = []
        self._exchanges, self._exchange_seconds = 0, 0.0
        self._norm, self._norm_due = math.nan, 0.0
        self._closed = threading.Event()

    def applied(self, seconds: float) -> None:
        """Count a commit that took so long, from any thread."""
        self._seconds.append(seconds)

    def run(self) -> None:
        """Add statuses until `close`."""
        while not self._closed.wait(SECONDS):
            self._center.event_log.add_status(self.status())

    def close(self) -> None:
        """End `run`, in another thread."""
        self._closed.set()

    def status(self) -> ServerStatus:
        """Return how the server does now."""
        seconds, self._seconds = self._seconds, []
        seconds.sort()
        self._exchanges += len(seconds)
        self._exchange_seconds += sum(seconds)
        traffic, connections = self._traffic()
        return ServerStatus(
            server=self._server,
            memory=memory_of_process(),
            cpu=time.process_time(),
            connections=connections,
            exchanges=self._exchanges,
            exchange_seconds=self._exchange_seconds,
            apply_p50=_percentile(seconds, 0.5),
            apply_p99=_percentile(seconds, 0.99),
            bytes_out=traffic.sent,
            bytes_in=traffic.received,
            center_norm=self._center_norm(),
            message_norm=self._message_norm(),
            timestamp=self._center.event_log.clock(),
        )

    def _center_norm(self) -> float:
        """Return the norm of the center, a new one if that is not too much work."""
        started = time.monotonic()
        if started >= self._norm_due:
            center = self._center
            centers = [center.top] if isinstance(center, Regional) else center.members
            self._norm = math.hypot(*(each.norm() for each in centers))
            ended = time.monotonic()
            self._norm_due = ended + (ended - started) / NORM_SHARE
        return self._norm

    def _message_norm(self) -> float:
        """Return the newest norm of a message, and ask for another."""
        norms = [member.norms for member in self._center.members]
        found = [each.message for each in norms if not each.wanted and not math.isnan(each.message)]
        for each in norms:
            each.wanted = True
        return found[-1] if found else math.nan


def memory_of_process() -> int:
    """Return the bytes of memory that this process takes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else math.nan
