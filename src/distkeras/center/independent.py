"""One center per worker: the members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Answer, Done
from distkeras.center.center import Center
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.event_log import EventLog
from distkeras.center.outer import Outer
from distkeras.center.requests import DRIVER, Dismiss, Follow, Keep, Order, Poll, Pull, Request, Write


class Independent(Outer):
    """Passes every request to the center of its worker; all centers share one event log.

    There is no request log: the members' parts at several servers need no common order.

    Args:
        config: settings that decide the result of each.
        initial: the first centers, shape (workers, size); copied.
        clock: seconds since the epoch, for the events' timestamps.
    """

    def __init__(self, config: CenterConfig, initial: Vector, *, clock: Callable[[], float]) -> None:
        event_log = EventLog(clock)
        members = [
            Center(config.member(worker), row, clock=clock, first_worker=worker, event_log=event_log)
            for worker, row in enumerate(np.atleast_2d(initial))
        ]
        super().__init__(members, members[0].size)

    def snapshot(self) -> Vector:
        """Return a copy of all centers, shape (workers, size)."""
        return np.stack([member.snapshot() for member in self.members])

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """Handle one request and return the answers, by worker.

        Raises:
            ProtocolError: as for `Center.handle`, or the worker has no center.
        """
        if isinstance(request, Poll):
            return [(DRIVER, self.event_log.read(request.since))]
        if isinstance(request, Follow | Dismiss):
            raise ProtocolError("Expected no server to follow this one: members do not share their order.")
        if isinstance(request, Order) and request.member is not None:
            return self._member(request.member).handle(request)
        if isinstance(request, Order | Keep):
            answers = [answer for member in self.members for answer in member.handle(request)]
            return [(DRIVER, Done()), *(answer for answer in answers if answer[0] != DRIVER)]
        return self._member(request.member if isinstance(request, Pull | Write) else request.worker).handle(
            request
        )

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """As for `Center.mark_lost`."""
        return self._member(worker).mark_lost(worker, silence)

    def seconds_left(self) -> None:
        """Return `None`: a round of one worker has no grace."""

    def look(self) -> list[Answer]:
        """Do nothing, and return no answers."""
        return []

    def _member(self, member: int) -> Center:
        if not 0 <= member < len(self.members):
            raise ProtocolError(f"Expected a worker in 0..{len(self.members) - 1}. Received: {member}")
        return self.members[member]
