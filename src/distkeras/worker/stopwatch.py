"""Measures where the time of the thread that trains goes."""

from __future__ import annotations

import time
from collections.abc import Callable

from distkeras.events import Timing
from distkeras.wire.traffic import Traffic


class Stopwatch:
    """Divides the time of one thread among what it does. Each call ends a lap, and begins the next one.

    It reads the clock a few times a minibatch, between the calls of the compiled step, never inside.

    Args:
        traffic: returns what the worker's connections have carried; `None` for no connections.
        clock: returns seconds from any origin.

    Attributes:
        held: seconds for which the server has held answers back since the last timing. Another thread may
            add to them, while this one trains.
    """

    __slots__ = ("_carried", "_clock", "_computing", "_exchanging", "_mark", "_traffic", "_waiting", "held")

    def __init__(
        self, traffic: Callable[[], Traffic] | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._traffic = Traffic if traffic is None else traffic
        self._clock = clock
        self._computing = self._waiting = self._exchanging = self.held = 0.0
        self._carried = 0, 0, 0
        self._mark = clock()

    def skip(self) -> None:
        """End a lap that counts as nothing, such as an evaluation that the driver has requested."""
        self._mark = self._clock()

    def computed(self) -> None:
        """End a lap of computing."""
        now = self._clock()
        self._computing += now - self._mark
        self._mark = now

    def waited(self) -> None:
        """End a lap of waiting for rows."""
        now = self._clock()
        self._waiting += now - self._mark
        self._mark = now

    def exchanged(self) -> None:
        """End a lap of exchanging."""
        now = self._clock()
        self._exchanging += now - self._mark
        self._mark = now

    def take(self) -> Timing:
        """Return what has come since the last call, and begin anew."""
        traffic = self._traffic()
        carried = traffic.sent, traffic.received, traffic.resends
        sent, received, resends = self._carried
        # What an answer was held back while this thread trained has cost it nothing.
        blocked = min(self.held, self._exchanging)
        timing = Timing(
            self._computing,
            self._waiting,
            self._exchanging,
            blocked,
            carried[0] - sent,
            carried[1] - received,
            carried[2] - resends,
        )
        self._computing = self._waiting = self._exchanging = self.held = 0.0
        self._carried = carried
        return timing
