"""The watch over a job in a thread of its own, so that the caller's thread is free for the user's code."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from distkeras.algorithms import Vector
from distkeras.center.answers import Refused
from distkeras.center.requests import Kind, Request, Write
from distkeras.wire.reports import fetch_report

if TYPE_CHECKING:
    from distkeras.cluster.watch import Watch
    from distkeras.events import Event

LOOK_SECONDS = 0.05
"""Longest time for which the caller's thread waits for an event before it looks at its other tasks."""

ENDING_SECONDS = 30.0


class _Ended:
    """The last item of the queue."""

    def __init__(self, num_updates: int = 0, error: BaseException | None = None) -> None:
        self.num_updates = num_updates
        self.error = error


class Watching:
    """Runs a watch in a thread, hands its events to the caller's thread, and takes its requests.

    Args:
        waiting_tasks: returns how many workers wait for a task slot; `None` if Spark does not tell.

    Attributes:
        num_updates: number of commits that the center applied, after the end; `None` before.
    """

    def __init__(self, waiting_tasks: Callable[[], int | None] = lambda: None) -> None:
        self.waiting_tasks = waiting_tasks
        self.num_updates: int | None = None
        self._events: queue.SimpleQueue[Event | _Ended | None] = queue.SimpleQueue()
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None

    def put(self, event: Event) -> None:
        """Receive an event, from the watch's thread."""
        self._events.put(event)

    def wake(self) -> None:
        """Let the caller's thread look at its other tasks at once; a signal handler may call this."""
        self._events.put(None)

    def start(self, watch: Watch) -> None:
        """Start the thread."""
        self._watch = watch
        self._thread = threading.Thread(target=self._run, args=(watch,), name="distkeras-watch", daemon=True)
        self._thread.start()

    def _run(self, watch: Watch) -> None:
        try:
            self._events.put(_Ended(watch.run()))
        except BaseException as error:
            self._events.put(_Ended(error=error))

    def events(self) -> Iterator[Event | None]:
        """Yield events in the center's order until the workers have ended, and `None` about every 50 ms.

        Raises:
            Exception: the error that ended the watch.
        """
        while True:
            try:
                item = self._events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                item = None
            if isinstance(item, _Ended):
                if item.error is not None:
                    raise item.error
                self.num_updates = item.num_updates
                return
            yield item

    def end(self) -> None:
        """End the watch and wait for its thread, for which the server still has to answer."""
        if self._watch is not None and self._thread is not None:
            self._watch.end()
            self._thread.join(ENDING_SECONDS)

    def order(self, member: int | None = None, **changes: Any) -> None:
        """Change the orders in force: see `Watch.order`."""
        self._asked.order(**changes if member is None else {"member": member, **changes})

    def keep(self, samples: int) -> None:
        """Ask for a copy of the center as it will be with `samples` rows: see `Watch.keep`."""
        self._asked.keep(samples)

    def pull(self, member: int = 0, kept: int = 0) -> Vector:
        """Return the center, or its copy for `kept` rows, shape (size,), in memory of the caller's own."""
        reply = self._asked.pull(member, kept)
        if isinstance(reply, Refused):
            raise RuntimeError(f"The center cannot be pulled: {reply.reason}.")
        return reply.center

    def write(self, center: Vector, member: int = 0) -> None:
        """Put `center`, shape (size,), in place of the center while all workers wait.

        Raises:
            RuntimeError: they do not.
        """
        reply = self._asked.ask(Write(center, member))
        if isinstance(reply, Refused):
            raise RuntimeError(f"The center cannot be written now: {reply.reason}.")

    def fetch(self, worker: int, kind: Kind, tag: int) -> bytes | None:
        """Return what a worker has reported: see `fetch_report`."""
        return fetch_report(self, worker, kind, tag)

    def call(self, request: Request) -> Any:
        """Send `request` to the server, as `Watch.ask`."""
        return self._asked.ask(request)

    @property
    def _asked(self) -> Watch:
        if self._watch is None:
            raise RuntimeError("The watch has not started.")
        return self._watch
