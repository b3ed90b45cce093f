"""Heartbeats of a worker, sent while its own thread trains, exchanges or waits for a round."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from distkeras.center.messages import Beat
from distkeras.wire.client import Client, JobStopped, ServerAddress, ServerLost
from distkeras.wire.group import Group

REPLY_BEATS = 3
"""A reply may take this many intervals; then the connection is opened again."""

logger = logging.getLogger(__name__)


class Heartbeat:
    """Sends heartbeats during a `with` block, to each server in its own thread over its own connection.

    A window may take hours, and one exchange with a large model minutes. The next heartbeat reopens a broken
    connection, also to a server that has restarted since.

    Args:
        client: the worker's connection to the center.
        worker: index of the worker.
        seconds: interval between two heartbeats.
        ticket: larger for a process that started later: if several run as one worker, the last one counts.
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
                    # A heartbeat has no vector to share or to compress.
                    alone = replace(address, packing=None, local_name=None)
                    client = Client(alone, patience=0.0, timeout=REPLY_BEATS * self._seconds)
                    self._clients.append(client)
                client.call(self._beat)
            except JobStopped as stopped:  # The worker's own next request gets the same reply.
                logger.debug("No more heartbeats of worker %d: %s", self._beat.worker, stopped)
                return
            except ServerLost as lost:
                logger.debug("A heartbeat of worker %d did not arrive: %s", self._beat.worker, lost)
            except Exception:  # Such as no certificate or file descriptor: the worker's thread handles it.
                logger.warning("A heartbeat of worker %d failed:", self._beat.worker, exc_info=True)

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
