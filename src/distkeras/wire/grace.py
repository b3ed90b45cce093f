"""Closes the rounds of a center in time, when a grace after their quorum is over."""

from __future__ import annotations

import threading
from collections.abc import Callable

from distkeras.center import AnyCenter
from distkeras.center.answers import Answer
from distkeras.center.bad_updates import note_errors_in_this_thread
from distkeras.center.follower import Follower
from distkeras.record import Recorded


class GraceWatch:
    """Waits until a center wants to be looked at, and looks at it. `run` needs a thread of its own.

    Args:
        center: the center; another thread calls its `handle`.
        deliver: passes the answers of a round to its workers.
        fail: called with an error of the algorithm, in the handler that caught it.
    """

    def __init__(
        self,
        center: AnyCenter | Recorded | Follower,
        deliver: Callable[[list[Answer]], object],
        fail: Callable[[Exception], object],
    ) -> None:
        self._center = center
        self._deliver = deliver
        self._fail = fail
        self._wake = threading.Event()
        self._closed = False

    def notice(self) -> None:
        """Call this after each request: it may have begun a grace."""
        if self._center.seconds_left() is not None:
            self._wake.set()

    def run(self) -> None:
        """Look at the center whenever it wants it, until `close`."""
        note_errors_in_this_thread()
        while not self._closed:
            self._wake.wait(self._center.seconds_left())
            self._wake.clear()
            try:
                answers = self._center.look()
            except Exception as error:
                self._fail(error)
            else:
                self._deliver(answers)

    def close(self) -> None:
        """End `run`."""
        self._closed = True
        self._wake.set()
