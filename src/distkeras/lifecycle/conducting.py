"""Reads the events of a job in the caller's thread, and passes them to the conductors of its models."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distkeras.center.orders import FOREVER
from distkeras.cluster.watch import WorkerError
from distkeras.events import CenterKept, EpochEnded, Event, ServerRestored
from distkeras.lifecycle.control import Control

if TYPE_CHECKING:
    from distkeras.cluster.watching import Watching
    from distkeras.lifecycle.conductor import Conductor
    from distkeras.lifecycle.plan import Stop

logger = logging.getLogger(__name__)


class Conducting:
    """What the caller's thread does while a job runs.

    Args:
        conductors: one for the model, or one for each member of an ensemble; none if nothing around the
            training sees it before its end.
        stop: the reason to end the whole training, which anyone may set.
        on_event: receives every event first.
        on_look: called after each event, and about every 50 ms.
    """

    def __init__(
        self,
        conductors: Sequence[Conductor],
        stop: Stop,
        on_event: Callable[[Event], None],
        on_look: Callable[[Watching], None] = lambda watching: None,
    ) -> None:
        self._conductors = conductors
        self._stop = stop
        self._on_event = on_event
        self._on_look = on_look
        self._ordered = False

    def __call__(self, watching: Watching) -> None:
        """Read the events until the workers have ended.

        Raises:
            Exception: the error of a worker or of the job; whatever a callback raises.
        """
        several = len(self._conductors) > 1
        for member, conductor in enumerate(self._conductors):
            conductor.start(Control(watching, member if several else None))
        try:
            for event in watching.events():
                if event is not None:
                    self._on_event(event)
                    for conductor in self._concerned(event):
                        conductor.take(event)
                self._look(watching, idle=event is None)
        except WorkerError as error:
            if not self._conductors or any(each.stop.reason != "not finite" for each in self._conductors):
                raise
            logger.info("The worker ends, as a callback has decided: %s", error)
        for conductor in self._conductors:
            conductor.finish()

    def _look(self, watching: Watching, *, idle: bool) -> None:
        self._on_look(watching)
        if self._stop.reason is not None and not self._ordered:
            self._ordered = True
            for conductor in self._conductors:
                conductor.stop.set(self._stop.reason, self._stop.detail)
            if not self._conductors:
                watching.order(stop=True, until=FOREVER)
            idle = True
        if idle:
            for conductor in self._conductors:
                conductor.look()

    def _concerned(self, event: Event) -> Sequence[Conductor]:
        """Return the conductors of the model that `event` is about."""
        if len(self._conductors) < 2 or isinstance(event, ServerRestored | CenterKept):
            return self._conductors
        member = event.member if isinstance(event, EpochEnded) else getattr(event, "worker", None)
        return () if member is None else self._conductors[member : member + 1]
