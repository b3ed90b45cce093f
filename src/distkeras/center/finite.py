"""Checks that a center stays finite: algorithms may overflow, or divide by 0, on finite messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distkeras.center.answers import Answer, Refused
from distkeras.center.event_log import EventLog
from distkeras.center.requests import Exchange
from distkeras.center.sharded import Sharded
from distkeras.center.snapshot import CenterState
from distkeras.events import CenterFailed, UpdateRefused


class Finite:
    """Checks one center, and remembers if the center or the algorithm's state held NaN or infinity.

    Args:
        vector: the center.

    Attributes:
        failure: what was wrong; `None` if nothing was so far.
        on_failure: called once with the failure.
    """

    def __init__(self, vector: Sharded) -> None:
        self.failure: str | None = None
        self.on_failure: Callable[[str], None] = lambda reason: None
        self._vector = vector

    def after(self, messages: Sequence[Exchange], event_log: EventLog) -> list[Answer]:
        """Check the center after `messages` were applied; return the workers' answers if it is not finite."""
        problem = self._vector.not_finite()
        if problem is None:
            return []
        reason = f"after a finite message, {problem}"
        for message in messages:
            window = message.worker, message.window_epoch, message.sequence - 1
            event_log.add(UpdateRefused(*window, reason, event_log.clock()))
        self._fail(reason)
        return [(message.worker, Refused(reason)) for message in messages]

    def check(self, event_log: EventLog, state: CenterState | None = None) -> str | None:
        """Check the center, or a `state` copied from it; end the job if it is not finite.

        Returns:
            What is wrong; `None` if nothing is.
        """
        vector = self._vector
        problem = vector.not_finite() if state is None else vector.not_finite_in(state.center, state.states)
        if problem is not None and self.failure is None:
            event_log.add(CenterFailed(f"The training has diverged: {problem}.", event_log.clock()))
            self._fail(problem)
        return problem

    def _fail(self, reason: str) -> None:
        if self.failure is None:
            self.failure = reason
            self.on_failure(reason)
