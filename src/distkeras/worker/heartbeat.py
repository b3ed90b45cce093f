"""Signs of life of a worker between its exchanges, which may be far apart."""

from __future__ import annotations

import threading

from distkeras.wire.client import Client
from distkeras.wire.group import Group


class Heartbeat:
    """Beats from a thread of its own for the time of a `with` block.

    Args:
        client: the worker's line to the center; a beat that would have to wait for an exchange is left out.
        worker: its index.
        seconds: between two beats.
    """

    def __init__(self, client: Client | Group, worker: int, seconds: float) -> None:
        self._client = client
        self._worker = worker
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distkeras-heartbeat", daemon=True)

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._client.beat(self._worker)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(1.0)
