"""A center of its own for every worker: the members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.center import Center, ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.ledger import Journal
from distkeras.center.messages import DRIVER, Answer, Poll, Pull, Request


class Independent:
    """Hands every request to the center of its worker; all write one journal.

    Args:
        config: what decides what becomes of each.
        initial: the first centers, shape (workers, size); copied.
        clock: seconds since the epoch, for the events' timestamps.

    Attributes:
        journal: the events of all members.
        members: their centers.
    """

    def __init__(self, config: CenterConfig, initial: Vector, *, clock: Callable[[], float]) -> None:
        self.journal = Journal(clock)
        self.members = [
            Center(config.member(), row, clock=clock, first_worker=worker, journal=self.journal)
            for worker, row in enumerate(np.atleast_2d(initial))
        ]

    @property
    def size(self) -> int:
        """Elements of each center."""
        return self.members[0].size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of each center."""
        return self.members[0].dtype

    def handle(self, request: Request) -> list[Answer]:
        """Take one request; return who is to be told what.

        Raises:
            ProtocolError: as `Center.handle`, or a worker that has no center.
        """
        if isinstance(request, Poll):
            return [(DRIVER, self.journal.read(request.since))]
        return self._member(request.member if isinstance(request, Pull) else request.worker).handle(request)

    def lose(self, worker: int, silence: float) -> list[Answer]:
        """As `Center.lose`."""
        return self._member(worker).lose(worker, silence)

    def _member(self, member: int) -> Center:
        if not 0 <= member < len(self.members):
            raise ProtocolError(f"Expected a worker in 0..{len(self.members) - 1}. Received: {member}")
        return self.members[member]
