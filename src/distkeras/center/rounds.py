"""The rounds of a synchronous algorithm: which messages make one, and when it is complete."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from distkeras.algorithms import TAKE, Algorithm, Vector
from distkeras.center.answers import Answer, Exchanged
from distkeras.center.bad_updates import noting_errors
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Decision, Decisions
from distkeras.center.event_log import EventLog
from distkeras.center.finite import Finite
from distkeras.center.ledger import WorkerRecord
from distkeras.center.requests import Exchange
from distkeras.center.sharded import Sharded
from distkeras.events import RoundClosed, RoundOpened

_LEFT = operator.attrgetter("left")


class Rounds:
    """The open round of a center. Workers wait in it until it is complete; then all of them are answered.

    A round is complete with a message from every worker that trains, or `grace` seconds after `quorum` of
    them have sent. A round whose grace is over is closed before a later message is handled. The caller holds
    the lock that the records of all workers share.

    Args:
        config: settings of the center.
        records: the records of the workers, by worker.
        decisions: numbers the rounds.
        vector: the center, to which the combined message is applied.
        finite: checks the center after that.
        event_log: receives the events.
        clock: seconds, for the grace.

    Attributes:
        messages: the messages of the open round, by worker; empty if no round is open.
        due: time at which the grace of the open round is over; `None` while too few workers have sent.
    """

    def __init__(
        self,
        config: CenterConfig,
        records: Mapping[int, WorkerRecord],
        decisions: Decisions,
        vector: Sharded,
        finite: Finite,
        event_log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self.messages: dict[int, Exchange] = {}
        self.due: float | None = None
        self._clock = clock
        self._config = config
        self._records = records
        self._decisions = decisions
        self._vector = vector
        self._finite = finite
        self._event_log = event_log

    def add(self, request: Exchange) -> list[Answer]:
        """Add a message, which opens a round if none is open; return the answers if it completes the round.

        A worker has one message in a round: a second one, sent again, replaces the first.
        """
        log = self._event_log
        if not self.messages:
            log.add(RoundOpened(log.num_updates, request.worker, self._awaited(), log.clock()))
        self.messages[request.worker] = request
        return self.close()

    def withdraw(self, worker: int) -> None:
        """Take the message of `worker` out of the open round, if it has one there."""
        if self.messages.pop(worker, None) is not None and len(self.messages) < self._awaited():
            self.due = None

    def abandon(self) -> list[int]:
        """Drop the open round, and return the workers that wait in it."""
        waiting, self.messages = sorted(self.messages), {}
        return waiting

    def close(self) -> list[Answer]:
        """Apply the open round if it is complete, and return the answers to its workers; else return none."""
        return self._close() if self._is_complete() else []

    def _close(self) -> list[Answer]:
        # Sorted by worker, not by arrival: the sum of floats depends on the order.
        messages = [self.messages[worker] for worker in sorted(self.messages)]
        self.messages, self.due = {}, None
        workers = [message.worker for message in messages]
        decision = self._decisions.close_round(messages)
        (reply, copy), noted = noting_errors(self._apply, messages, workers, decision)
        log = self._event_log
        if noted and (failure := self._finite.after(messages, log)):
            return failure
        reply.flags.writeable = False
        behind = list(zip(messages, decision.staleness, strict=True))
        committed = [
            event
            for message, staleness in behind
            for event in self._records[message.worker].commit(message, staleness, decision.commit, log.clock)
        ]
        closed = RoundClosed(log.num_updates, workers, self._num_live(), self._lost(), log.clock())
        log.commit([*committed, closed], 1 if decision.commit.verdict is TAKE else 0)
        if decision.kept or decision.ended:
            log.add(*self._decisions.boundaries(copy, decision, log.clock()))
        return [
            (message.worker, Exchanged(reply, staleness, False, message.sequence, message.fragment))
            for message, staleness in behind
        ]

    def _apply(
        self, messages: list[Exchange], workers: list[int], decision: Decision
    ) -> tuple[Vector, Vector | None]:
        """Apply the messages of a round; return their reply, and a copy of the center if one is wanted."""
        weights = weights_of(messages, self._config.algorithm)
        return self._vector.exchange_round([each.message for each in messages], weights, workers, decision)

    def close_late(self) -> list[Answer]:
        """Close the open round if its grace is over, and return the answers; else return none."""
        answers = [] if self.due is None else self.close()
        if answers:
            self._decisions.note_round()
        return answers

    def close_as_told(self) -> list[Answer]:
        """Close the open round, which another server does not have any more, and return the answers."""
        return self._close() if self.messages else []

    def _is_complete(self) -> bool:
        """Return whether the round can close now. If only its grace is missing, note when that is over."""
        grace, sent, live = self._config.grace, len(self.messages), self._num_live()
        if not sent or sent < min(self._config.quorum or live, live):
            self.due = None
            return False
        if sent >= live:
            return True
        if self._decisions.obeys:  # The first of several servers tells when a quorum is enough.
            return False
        if not grace:
            return True
        now = self._clock()
        if self.due is None or now < self.due - grace:  # The clock was set back: begin again.
            self.due = now + grace
        return now >= self.due

    def _awaited(self) -> int:
        """Return how many messages complete a round with the current workers."""
        live = self._num_live()
        return min(self._config.quorum or live, live)

    def _num_live(self) -> int:
        """Return how many workers a round counts."""
        # Every message asks for it: of a thousand workers, a loop in Python would take longer than the rest.
        left: int = sum(map(_LEFT, self._records.values()))
        live = len(self._records) - left
        return live - len(self._lost()) if self._config.without_lost else live

    def _lost(self) -> list[int]:
        """Return which lost workers a round leaves out."""
        if not self._config.without_lost:
            return []
        records = self._records.items()
        return [worker for worker, record in records if record.lost and not record.left]


def weights_of(messages: Sequence[Exchange], algorithm: Algorithm) -> Vector:
    """Return the weights of a round's messages, by samples, all equal, or as the algorithm says; sum 1."""
    own = [algorithm.weight(message.num_samples, message.num_steps) for message in messages]
    weights = np.array(own, messages[0].message.dtype)
    if not weights.any():  # No message has samples: weigh all alike.
        weights[:] = 1
    weights /= weights.sum()
    return weights
