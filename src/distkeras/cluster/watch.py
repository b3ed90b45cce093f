"""The driver's watch over a job: reads its events, restarts a killed server, detects the end."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from distkeras.center import CenterConfig
from distkeras.center.answers import MAX_PAGE, Polled, Pulled, Refused
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Poll, Pull, Request
from distkeras.cluster.deadlines import Deadlines, Limits, WorkerError, python_traceback
from distkeras.cluster.pace import Pace
from distkeras.cluster.presence import Presence
from distkeras.cluster.process import ServerFailed
from distkeras.cluster.story import Story
from distkeras.cluster.wishes import Wishes
from distkeras.events import (
    CenterFailed,
    Event,
    ServerRestored,
    Window,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)
from distkeras.wire.client import Client, ServerLost
from distkeras.wire.group import Group
from distkeras.wire.mailbox import Mailbox
from distkeras.worker.final_state import failures_in

DYING_SECONDS = 1.0

__all__ = ["Limits", "Watch", "WorkerError"]


class Running(Protocol):
    """The workers, wherever they run."""

    @property
    def error(self) -> BaseException | None:
        """The exception that ended them all, if any."""

    @property
    def rows(self) -> Sequence[Any]:
        """The final states of all, once they have ended: see `worker.final_state`."""

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether all have ended."""


class Revivable(Protocol):
    """The process of the center, or all of them, wherever they run."""

    def revive(self, since: int, seconds: float) -> bool:
        """Restart what has ended: see `ServerProcess.revive`."""


class Watch:
    """Watches the workers of one job to their end.

    Args:
        stage: the workers.
        server: the process of the center, or all of them; restarted when killed.
        client: the driver's connection to the center.
        num_workers: number of workers that have to commit their last window.
        on_event: receives every event, in the center's order.
        limits: how long the driver waits for a worker.
        clock: returns seconds from any origin; replaced in tests.
        story: the story of the job, which receives the events; default: a new one.
        settable_rate: whether the workers' optimizer has a learning rate that can be ordered.
        center: settings of the center; default: one that never holds answers back, and no ensemble.
        pause: least seconds between two polls of the events.
        on_stop: called when the workers are ordered to stop.
    """

    def __init__(
        self,
        stage: Running,
        server: Revivable,
        client: Client | Group | Mailbox,
        num_workers: int,
        on_event: Callable[[Event], None],
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        story: Story | None = None,
        settable_rate: bool = True,
        center: CenterConfig | None = None,
        pause: float = 0.0,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_stop = on_stop
        self._story = story or Story()
        self._stage = stage
        self._pause = pause
        self._server = server
        self._client = client
        self._on_event = on_event
        self._since = 0
        self._clock = clock
        self._deadlines = Deadlines(num_workers, limits or Limits(), clock, self._story.tell)
        self._settable_rate = settable_rate
        members = 0 if center is None or not center.independent else center.num_workers
        elastic = None if center is None else center.elastic
        self._presence = (
            None
            if elastic is None
            else Presence(elastic.min_workers, num_workers, (limits or Limits()).give_up, started=clock())
        )
        self._until = None if center is None else center.until
        self._wishes, self._pace = Wishes(members), Pace(members)
        self._polled = clock()
        self._asking = threading.Lock()
        self._ending = threading.Event()

    def end(self) -> None:
        """Let `run` return after its next poll, from any thread."""
        self._ending.set()

    def run(self) -> int:
        """Read events until the workers have ended, or until `end`; return the number of updates.

        Raises:
            WorkerError: an exception in a worker or in the algorithm on the server; a worker did not finish,
                was lost for too long, or never spoke; or none started.
            ServerFailed: the server ended and could not be restarted, or cannot continue.
        """
        ended, more = False, False
        while more or not ended:
            # Polled until no events remain after the end, so that the last events are read too.
            ended = self._stage.wait(0.0 if more else self._seconds_to_next_poll())
            polled: Polled = self.ask(Poll(self._since))
            self._since = polled.next
            more = len(polled.events) >= MAX_PAGE or (ended and bool(polled.events))
            for event in polled.events:
                self._take(event)
            self._check_deadlines()
            if self._ending.is_set():
                return polled.num_updates
        if self._stage.error is not None:
            raise _error_of(self._stage.error)
        for worker, error in failures_in(self._stage.rows):
            raise WorkerError(f"Worker {worker} failed:\n{error}")
        if missing := sorted(self._deadlines.training):
            raise WorkerError(f"The Spark stage ended, but the workers {missing} had not finished.")
        return polled.num_updates

    def order(self, *, member: int | None = None, **changes: Any) -> None:
        """Change the orders in force, from any thread. They go out at once, or with the next request.

        Every worker takes them up within a window, and its replacement at its start. A restarted server gets
        them again.

        Args:
            member: in an ensemble, the member that they are for; `None` for all.
            **changes: attributes of `distkeras.center.orders.Orders`, except `number`, which the center
                counts. The others stay as they were ordered last.

        Raises:
            ValueError: a number is out of range, there is no such member, or a learning rate is ordered from
                an optimizer that has a schedule.
            TypeError: there is no such order.
            ServerLost, ServerFailed: as for `ask`.
        """
        if not changes.keys() <= set(NO_ORDERS._fields) - {"number"}:
            raise TypeError(f"Expected some of {NO_ORDERS._fields[1:]}. Received: {', '.join(changes)}")
        if not self._settable_rate and changes.get("learning_rate") is not None:
            raise ValueError(
                "Expected an optimizer whose learning rate is a number. The rate of a schedule "
                "cannot be set: compile the model with a number, or set another `step` of the schedule. "
                f"Received: learning_rate={changes['learning_rate']!r}"
            )
        if changes.get("stop"):
            self._on_stop()
        self._wishes.order(changes, member)
        self._send_if_free()

    def keep(self, samples: int) -> None:
        """Ask for a copy of the center as of the first message that brings it to `samples` rows.

        From any thread; the request goes out at once, or with the next one. The event `CenterKept` tells that
        there is a copy, and `ask(Pull(kept=samples))` brings it: `Refused` as long as one of several servers
        does not have its part. Until the copy has been pulled, a restarted server is asked again, and tells
        again.

        Raises:
            ValueError: `samples` is less than 1.
            ServerLost, ServerFailed: as for `ask`.
        """
        if samples < 1:
            raise ValueError(f"Expected a number of rows, at least 1. Received: samples={samples!r}")
        self._wishes.keep(samples)
        self._send_if_free()

    def ask(self, request: Request) -> Any:
        """Send `request` to the server, which is restarted if it has ended, and return the reply.

        From any thread; the requests of several go out one after another. The next request whose reply has a
        vector overwrites the vector of this one.

        Raises:
            ServerLost: the server cannot be reached.
            ServerFailed: it has ended and could not be restarted.
        """
        with self._asking:
            self._send_wishes()
            return self._call(request)

    def pull(self, member: int = 0, kept: int = 0) -> Pulled | Refused:
        """Return the reply to a `Pull`, with a vector in memory of its own."""
        with self._asking:
            self._send_wishes()
            reply: Pulled | Refused = self._call(Pull(member, kept))
            return replace(reply, center=reply.center.copy()) if isinstance(reply, Pulled) else reply

    def _send_if_free(self) -> None:
        """Send the orders and the numbers of rows now, unless a request is under way: then after it."""
        # It does not wait, so that a signal's handler may order while its own thread asks.
        if self._asking.acquire(blocking=False):
            try:
                self._send_wishes()
            finally:
                self._asking.release()

    def _send_wishes(self) -> None:
        while wishes := self._wishes.unsent():  # There are more if the server restarts meanwhile.
            for wish in wishes:
                self._call(wish)

    def _call(self, request: Request) -> Any:
        seconds = 0.0
        while True:
            if self._server.revive(self._since, seconds):
                self._client.close()  # Its connection ended with the old process.
                self._wishes.restarted()
                seconds = 0.0
            try:
                reply = self._client.call(request)
                if isinstance(request, Pull) and isinstance(reply, Pulled):
                    self._wishes.pulled(request.kept)
                return reply
            except ServerLost:
                if seconds:
                    raise
                seconds = DYING_SECONDS  # It may be about to end.

    def _seconds_to_next_poll(self) -> float:
        now = self._clock()
        before, self._polled = self._polled, now
        untils = {self._until if until is None else until for until in self._wishes.untils}
        return max(self._pause, self._pace.seconds(untils, now - before))

    def _check_deadlines(self) -> None:
        if self._presence is None:
            self._deadlines.check()
        elif (complaint := self._presence.complaint(self._clock())) is not None:
            raise WorkerError(complaint)  # No share is missed: one that was lost waits for a slot.

    def _take(self, event: Event) -> None:
        self._story.take(event)
        self._pace.take(event)
        if self._presence is not None:
            self._presence.take(event, self._clock())
        match event:
            case Window() | WorkerJoined():
                self._deadlines.heard(event.worker)
            case WorkerBack():
                self._deadlines.back(event.worker)
            case WorkerLost():
                self._deadlines.lost(event.worker, event.silence)
            case WorkerFailed():
                raise WorkerError(f"Worker {event.worker} failed:\n{event.error}")
            case CenterFailed():
                raise ServerFailed(event.error)
            case WorkerLeft():
                if not event.rests:
                    self._deadlines.left(event.worker)
            case ServerRestored():
                self._deadlines.restored(event.left)
        self._on_event(event)


def _error_of(error: BaseException) -> BaseException:
    """Return the error of a stage whose task raised: what the worker says, without what Spark adds to it."""
    trace = python_traceback(str(error))
    found = None if trace is None else re.search(r"ServerLost: Worker (\d+)", trace)
    if found is None:
        return error
    lost = WorkerError(f"Worker {found[1]} failed:\n{trace}")
    lost.__cause__ = error
    return lost
