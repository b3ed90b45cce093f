"""Decides whether a process may join now, where several may train as one worker."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

from distkeras.center.answers import Answer, NotYet, Place
from distkeras.center.elastic import Elastic
from distkeras.center.requests import MayJoin
from distkeras.wire import frames
from distkeras.wire.admission import Admission, Caller
from distkeras.wire.failure_detector import FailureDetector


class Asked(Protocol):
    """A center that knows where its workers are."""

    def handle(self, request: MayJoin) -> list[Answer]: ...


class Entrance:
    """Answers `MayJoin`. Spark may run a copy of a slow task beside it, and ends the one that is slower.

    A copy that joined would take the place of the process that trains, and lose its window. So it waits until
    that process is lost: its connection is closed, or it has been silent for too long.

    Args:
        center: the center.
        admission: knows which process acts for which worker.
        failures: knows who has been silent for too long.
        expected: workers that trained before this server was started again. They get time to come back.
        elastic: how many may train at once; `None` for no limits.
    """

    def __init__(
        self,
        center: Asked,
        admission: Admission,
        failures: FailureDetector,
        expected: Collection[int],
        elastic: Elastic | None = None,
    ) -> None:
        self._center = center
        self._admission = admission
        self._failures = failures
        self._expected = frozenset(expected)
        self._elastic = elastic
        self._begun = False
        self._lock = threading.Lock()  # One after the other: two may not take the last place.

    def answer(self, caller: Caller, request: MayJoin) -> Place | NotYet | frames.Stopped:
        """Return the answer to `caller`.

        Raises:
            ProtocolError: the center has no such worker.
        """
        worker = request.worker
        ((_, place),) = self._center.handle(request)  # It knows whether there is such a worker.
        if not isinstance(place, Place):
            raise TypeError(f"Expected a place from the center. Received: {place!r}")
        with self._lock:
            reason = None if place.stopped else self._why_not_yet(caller, worker)
            if reason is not None:
                return NotYet(reason)
            return self._let_in(caller, request, place)

    def _why_not_yet(self, caller: Caller, worker: int) -> str | None:
        """Return why the number of workers keeps a process out; `None` if it does not."""
        if self._elastic is None:
            return None
        acting, waiting = self._admission.present(caller, worker)
        least, most = self._elastic.min_workers, self._elastic.max_workers
        there = len(acting | waiting)
        if not self._begun and there < least:
            return f"{there} of {least} workers are there"
        self._begun = True
        full = worker not in acting and len(acting) >= most
        return f"{most} workers train, which is the maximum" if full else None

    def _let_in(self, caller: Caller, request: MayJoin, place: Place) -> Place | NotYet | frames.Stopped:
        worker = request.worker
        ticket = self._admission.take_over(
            caller,
            worker,
            request.ticket,
            heard=self._failures.hears(worker),
            expected=worker in self._expected,
        )
        if ticket is None:
            return NotYet(f"another process trains as worker {worker}")
        if isinstance(ticket, frames.Stopped):
            return ticket
        self._failures.heard(worker)
        return replace(place, ticket=ticket)
