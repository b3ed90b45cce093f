"""A part of the center that handles its requests in the order in which the first server has handled them."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from typing import Protocol

from distkeras.center.answers import WAITS, Answer, Followed, LogEntry, Refused, Rejoin
from distkeras.center.center import Center
from distkeras.center.checks import ProtocolError
from distkeras.center.outer import Outer
from distkeras.center.requests import DRIVER, Beat, Dismiss, Exchange, Join, Keep, Leave, Request, Write

Waiting = Join | Exchange | Leave
"""Requests whose order matters."""
WRITE_SECONDS = 60.0
"""Longest time for the requests before a `Write` to be handled."""


class Obedient(Protocol):
    """What a follower drives: a `Center`, or one that also records its requests."""

    @property
    def members(self) -> list[Center]: ...
    @property
    def size(self) -> int: ...
    def handle(self, request: Request | Dismiss) -> list[Answer]: ...
    def mark_lost(self, worker: int, silence: float) -> list[Answer]: ...
    def look(self) -> list[Answer]: ...
    def obeying(self, given: LogEntry) -> contextlib.AbstractContextManager[None]: ...


class Follower(Outer):
    """Handles requests in the order that the first of several servers gives, with its decisions.

    A request waits for its entry in that order, and an entry for its request. If the worker's connection to
    this server is cut, its entry is passed over, so that it holds up nobody; its request is handled whenever
    it comes. The same holds for entries that were lost because a server has restarted. Such a window counts
    once at each server, but not at the same place in the order.

    Args:
        center: this server's part of the center.

    Attributes:
        center: the part of the center.
        leader: name of the first server's process, as far as it is known; otherwise "".
        next: number of the next entry to ask for.
    """

    def __init__(self, center: Obedient) -> None:
        super().__init__(center.members, center.size)
        self.center = center
        self.leader = ""
        self.next = 0
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._entries: list[LogEntry] = []
        self._pending: dict[int, Waiting] = {}  # by worker
        self._present: set[int] = set()  # Workers that have a connection to this server.
        # By worker: the entry of its latest request that has had its turn, even if it had not come.
        self._passed: dict[int, LogEntry] = {}
        # Workers of which the first server's process has no entry yet: theirs may be lost with the last one.
        self._adrift: set[int] = set()
        self._has_quorum = any(member.config.quorum is not None for member in self.members)

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """Handle one request, when it is its turn; return the answers to all requests whose turn has come.

        Raises:
            ProtocolError: as for `Center.handle`.
        """
        if isinstance(request, Write):
            return self._write(request)
        if not isinstance(request, Waiting):
            if isinstance(request, Beat):
                with self._lock:
                    self._present.add(request.worker)
            return self.center.handle(request)
        with self._lock:
            worker, passed = request.worker, self._passed.get(request.worker)
            self._present.add(worker)
            if worker in self._adrift:
                answers = self._take_unordered(request)
            elif passed is not None and request.call <= passed.call:
                self._pending.pop(worker, None)
                answers = self._take(request, passed)
            else:
                self._pending[worker] = request
                answers = []
            return [*answers, *self._advance()]

    def _write(self, request: Write) -> list[Answer]:
        """Put a new center in place, after the requests that the first server has handled before that."""

        def handled() -> bool:
            passed = self._passed.get(request.worker)
            return passed is not None and passed.call >= request.call

        with self._changed:
            if not self._changed.wait_for(handled, WRITE_SECONDS):
                return [(request.worker, Refused("the requests before this one have not been handled yet"))]
            return self.center.handle(request)

    def follow(self, page: Followed) -> list[Answer]:
        """Take the next entries of the order; return the answers to all requests whose turn has come."""
        with self._lock:
            self.leader, self.next = page.leader, page.next
            if not page.anew:
                self._entries += page.entries
                return self._advance()
            # Entries are lost: what waits is handled now, and what was handled there whenever it comes.
            self._entries = []
            for entry in page.entries:
                self._pass(_closed(entry))
            answers = []
            if page.restored:
                answers = self.center.handle(Dismiss())
                everybody = {worker for member in self.members for worker in member.workers}
                self._adrift = everybody - {entry.worker for entry in page.entries}
            waiting, self._pending = self._pending, {}
            for worker in sorted(waiting):
                answers += self._take_unordered(waiting[worker])
            return answers

    def cut(self, worker: int) -> list[Answer]:
        """Record that the connection of `worker` is lost; return the answers to those whom it held up."""
        with self._lock:
            self._present.discard(worker)
            return self._advance()

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """Hold up nobody for a silent worker. Whether it is lost is the first server's decision."""
        return self.cut(worker)

    def seconds_left(self) -> None:
        """Return `None`: the first server decides when a round is over."""

    def look(self) -> list[Answer]:
        """Do nothing, and return no answers."""
        return []

    def _advance(self) -> list[Answer]:
        """Handle the requests whose turn it is."""
        answers: list[Answer] = []
        while self._entries:
            entry = self._entries[0]
            worker, passed = entry.worker, self._passed.get(entry.worker)
            request = self._pending.get(worker)
            # The worker has had this entry, or has gone on meanwhile: nothing comes for it.
            over = (passed is not None and entry.call <= passed.call) or (
                request is not None and request.call > entry.call
            )
            here = request is not None and request.call == entry.call
            if not (entry.call == 0 or over or here) and worker in self._present:
                break  # Its request is under way.
            del self._entries[0]
            self._adrift.discard(worker)
            if entry.call:
                self._pass(entry)
            elif worker != DRIVER:
                with self.center.obeying(entry):
                    answers += self.center.mark_lost(worker, 0.0)
            elif not entry.number:  # The center was copied, without a message.
                for samples in entry.kept:
                    self.center.handle(Keep(samples, now=True))
            if entry.number and self._has_quorum:
                self._passed = {other: _closed(passed) for other, passed in self._passed.items()}
            if request is not None and here:
                del self._pending[worker]
                answers += self._take(request, entry)
            elif entry.number:
                answers += self._close(entry)
        return answers

    def _close(self, entry: LogEntry) -> list[Answer]:
        """Close the open round, because the first server has none after `entry`, or none with its request.

        Without a quorum, a round waits here for the messages that have not come, as it did there.
        """
        if not self._has_quorum:
            return []
        with self.center.obeying(entry):
            return self.center.look()

    def _take_unordered(self, request: Waiting) -> list[Answer]:
        """Handle a request whose entry may be lost, or may be among the next ones."""
        entry = LogEntry(request.worker, request.call)
        self._pass(entry)
        if request.worker in self._adrift and not isinstance(request, Join):
            # The first server does not know the worker and will say so, or has said something that it forgot.
            return [(request.worker, Rejoin())]
        return self._take(request, entry)

    def _pass(self, entry: LogEntry) -> None:
        """Record that the turn of `entry` is over."""
        passed = self._passed.get(entry.worker)
        if passed is None or entry.call > passed.call:
            self._passed[entry.worker] = entry
            self._changed.notify_all()

    def _take(self, request: Waiting, entry: LogEntry) -> list[Answer]:
        """Handle a request, which another worker's may have brought about: its errors are for its sender."""
        try:
            given = entry if entry.call == request.call else LogEntry(request.worker)
            with self.center.obeying(given):
                answers = self.center.handle(request)
            waits = isinstance(request, Exchange) and all(to != request.worker for to, _ in answers)
            closes = given.number or (waits and given.verdict != WAITS)
            return [*answers, *self._close(given)] if closes else answers
        except ProtocolError as error:
            return [(request.worker, Refused(str(error)))]


def _closed(entry: LogEntry) -> LogEntry:
    """Return the entry of a message whose round has been closed since."""
    return replace(entry, verdict="") if entry.verdict == WAITS else entry
