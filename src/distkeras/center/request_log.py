"""The order in which the first of several servers handles its requests, for the others to follow."""

from __future__ import annotations

import secrets
import threading
from collections import deque

from distkeras.algorithms import Commit
from distkeras.center.answers import Followed, LogEntry
from distkeras.center.requests import DRIVER

KEPT = 10_000
"""Entries kept for servers that have not read them yet: few, because a worker has one request at a time."""


class RequestLog:
    """The log of the first server's requests, one entry each.

    Args:
        restored: whether its process continues from a snapshot.

    Attributes:
        name: a new random name for every process: after a restart of the first server, others start anew.
    """

    def __init__(self, *, restored: bool = False) -> None:
        self._restored = restored
        self.name = secrets.token_hex(8)
        self._changed = threading.Condition()
        self._entries: deque[LogEntry] = deque(maxlen=KEPT)
        self._next = 0
        self._last: dict[int, LogEntry] = {}

    def add(self, entry: LogEntry) -> None:
        """Append an entry."""
        with self._changed:
            self._entries.append(entry)
            if entry.worker != DRIVER or entry.call:  # Else no request has closed this round.
                self._last[entry.worker] = entry
            self._next += 1
            self._changed.notify_all()

    def last_call(self, worker: int) -> int | None:
        """Return the number of the last request of `worker` in the log; `None` if there is none."""
        with self._changed:
            entry = self._last.get(worker)
            return None if entry is None else entry.call

    def read(self, leader: str, since: int) -> Followed:
        """Return the entries from number `since` on to a server that has read those of `leader` before.

        A server that read those of another process, or has missed some, starts anew: it receives the last
        entry of every worker.
        """
        with self._changed:
            first = self._next - len(self._entries)
            if leader != self.name or not first <= since <= self._next:
                return Followed(self.name, True, self._restored, list(self._last.values()), self._next)
            return Followed(
                self.name, False, self._restored, list(self._entries)[since - first :], self._next
            )

    def wait(self, leader: str, since: int, seconds: float) -> None:
        """Wait at most `seconds` until `read` has something to return."""
        with self._changed:
            self._changed.wait_for(lambda: leader != self.name or since != self._next, seconds)


def entry_of(worker: int, call: int, commit: Commit | None = None, kept: tuple[int, ...] = ()) -> LogEntry:
    """Return the entry of a request, with the decision that it led to, and the copies made after it."""
    if commit is None:
        return LogEntry(worker, call)
    facts = commit.number, commit.staleness, commit.buffered, commit.verdict.value
    return LogEntry(worker, call, *facts, list(kept))
