"""Heartbeats of a worker, sent while its own thread trains."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import replace

from distkeras.center.requests import Beat
from distkeras.events import Phase
from distkeras.wire.client import Client, JobStopped, ServerLost
from distkeras.wire.group import Group

REPLY_BEATS = 3
"""A reply may take this many intervals; then the connection is opened again."""

UNTOLD_SECONDS = 0.5
"""Seconds until the server is told again what the worker does, if it could not be told at once."""

logger = logging.getLogger(__name__)


class Heartbeat:
    """Sends heartbeats during a `with` block, to each server in its own thread over the worker's connection.

    A window may take hours. During an exchange no heartbeats are sent: the server sees bytes move, or knows
    that the worker waits for it. The next heartbeat reopens a broken connection, also to a server that has
    restarted since.

    Args:
        client: the worker's connection to the center.
        worker: index of the worker.
        seconds: interval between two heartbeats.
        ticket: larger for a process that started later: if several run as one worker, the last one counts.

    Attributes:
        drop: number of the commit after which the worker is to drop its window, as far as the first server
            has said; -1 for none.
    """

    def __init__(self, client: Client | Group, worker: int, seconds: float, ticket: int = 0) -> None:
        self._client = client
        self._beat = Beat(worker, ticket)
        self._seconds = seconds
        self.drop = -1
        self._ended = threading.Event()
        self._untold = threading.Event()  # The phase has changed, and the first server does not know it.
        self._threads = [
            threading.Thread(target=self._run, args=(client, index), name="distkeras-heartbeat", daemon=True)
            for index in range(len(client.clients))
        ]

    def tell(self, phase: Phase) -> None:
        """Tell the first server what the worker does now: at once, or after the exchange that is under way.

        A server that cannot be reached, or that has stopped the job, is for the next request.
        """
        self._beat = replace(self._beat, phase=phase)
        told = False
        with contextlib.suppress(JobStopped, ServerLost):
            told = self._send(self._client, 0)
        if not told:
            self._untold.set()

    def _send(self, client: Client | Group, index: int) -> bool:
        """Send a heartbeat, unless a request is under way; return whether it was sent."""
        beat = self._beat
        reply = client.clients[index].beat(beat, REPLY_BEATS * self._seconds)
        if reply is not None and index == 0:
            self.drop = reply.drop
            if beat is self._beat:
                self._untold.clear()
        return reply is not None

    def _wait(self, index: int) -> bool:
        """Wait for the next heartbeat; return whether they have ended."""
        if index:
            return self._ended.wait(self._seconds)
        if self._untold.is_set():  # It could not be told at once.
            return self._ended.wait(min(UNTOLD_SECONDS, self._seconds))
        self._untold.wait(self._seconds)
        return self._ended.is_set()

    def _run(self, client: Client | Group, index: int) -> None:
        while not self._wait(index):
            try:
                self._send(client, index)
            except JobStopped as stopped:  # The worker's own next request gets the same reply.
                logger.debug("No more heartbeats of worker %d: %s", self._beat.worker, stopped)
                return
            except ServerLost as lost:
                logger.debug("%s", lost)
            except Exception:  # Such as a server with another certificate: the worker's thread handles it.
                logger.warning("A heartbeat of worker %d failed:", self._beat.worker, exc_info=True)

    def __enter__(self) -> Heartbeat:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._untold.set()  # It wakes the first thread.
        for thread in self._threads:
            thread.join(1.0)
