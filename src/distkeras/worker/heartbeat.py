"""Signs of life of a worker, whatever its own thread is doing: training, exchanging, waiting for a round."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from distkeras.center.messages import Beat
from distkeras.wire.client import Client, JobStopped, ServerAddress, ServerLost
from distkeras.wire.group import Group

REPLY_BEATS = 3
"""A reply may take as many beats; then the connection is opened anew."""

logger = logging.getLogger(__name__)


class Heartbeat:
    """Beats for the time of a `with` block, at each server from a thread and by a connection of its own.

    A window may take hours, and one exchange with a large model minutes. A connection that was cut is opened
    again with the next beat, also to a server that was started again in between.

    Args:
        client: the worker's line to the center.
        worker: its index.
        seconds: between two beats.
        ticket: larger for a process that was started later: of several that are one worker the last counts.
    """

    def __init__(self, client: Client | Group, worker: int, seconds: float, ticket: int = 0) -> None:
        self._beat = Beat(worker, ticket)
        self._seconds = seconds
        self._ended = threading.Event()
        self._clients: list[Client] = []
        self._threads = [
            threading.Thread(target=self._run, args=(address,), name="distkeras-heartbeat", daemon=True)
            for address in client.addresses
        ]

    def _run(self, address: ServerAddress) -> None:
        client: Client | None = None
        while not self._ended.wait(self._seconds):
            try:
                if client is None:
                    # A beat has no vector: nothing to share, nothing to compress.
                    alone = replace(address, packing=None, local_name=None)
                    client = Client(alone, patience=0.0, timeout=REPLY_BEATS * self._seconds)
                    self._clients.append(client)
                client.call(self._beat)
            except JobStopped as stopped:  # The worker's own next word hears the same.
                logger.debug("No more signs of life of worker %d: %s", self._beat.worker, stopped)
                return
            except ServerLost as lost:
                logger.debug("A sign of life of worker %d did not arrive: %s", self._beat.worker, lost)
            except Exception:  # No certificate, no file descriptor: the worker's own thread says what to do.
                logger.warning("A sign of life of worker %d failed:", self._beat.worker, exc_info=True)

    def __enter__(self) -> Heartbeat:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for client in self._clients:
            client.end()
        for thread in self._threads:
            thread.join(1.0)
