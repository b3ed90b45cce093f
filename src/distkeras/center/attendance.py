"""Which workers take part in the training of a center: they join, leave, or are lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.answers import Answer, Done, Joined, Refused, Rejoin
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Decisions
from distkeras.center.epochs import Epochs
from distkeras.center.event_log import EventLog
from distkeras.center.finite import Finite
from distkeras.center.ledger import WorkerRecord
from distkeras.center.records import Records
from distkeras.center.requests import Join, Leave
from distkeras.center.rounds import Rounds
from distkeras.center.sharded import Sharded
from distkeras.events import Event, WorkerJoined, WorkerLeft, WorkerLost


class Attendance:
    """Handles the coming and going of workers. The caller holds the lock of the worker's record.

    Args:
        config: settings of the center.
        records: the records of its workers.
        decisions: its decisions.
        rounds: the open round of a synchronous algorithm.
        vector: the center.
        epochs: its epochs, the last of which ends when all workers have left.
        finite: checks the center then.
        event_log: receives the events.
        report: receives those that concern one worker.
        fragment: index of the fragment that this is the center of.
        num_fragments: number of fragments, which workers commit in turn.
    """

    def __init__(
        self,
        config: CenterConfig,
        records: Records,
        decisions: Decisions,
        rounds: Rounds,
        vector: Sharded,
        epochs: Epochs,
        finite: Finite,
        event_log: EventLog,
        report: Callable[[Event], None],
        fragment: int,
        num_fragments: int,
    ) -> None:
        self._config = config
        self._records = records
        self._decisions = decisions
        self._rounds = rounds
        self._vector = vector
        self._epochs = epochs
        self._finite = finite
        self._event_log = event_log
        self._report = report
        self._fragment, self._num_fragments = fragment, num_fragments

    def join(self, request: Join, record: WorkerRecord) -> list[Answer]:
        """Take a worker, which may replace another process, and tell it where to start."""
        worker = request.worker
        if request.layout != self._config.layout and request.layout and self._config.layout:
            reason = f"expected the layout {self._config.layout} of the weights. Received: {request.layout}"
            return [(worker, Refused(reason))]
        late = self._rounds.close_late()
        # The predecessor's message in an open round got no answer: the replacement repeats that window.
        self._rounds.withdraw(worker)
        record.joined, record.lost, record.missed, record.refused = True, False, False, 0
        record.left = record.rests = False
        center = self.center_for(request)
        if self._num_fragments == 1:  # The place of several is not that of one of them.
            now = self._event_log.clock()
            place = record.epoch, record.step
            self._report(WorkerJoined(worker, request.attempt, *place, now, request.about))
        return [*late, (worker, Joined(center, record.sequence, record.epoch, record.step))]

    def leave(self, request: Leave, record: WorkerRecord) -> list[Answer]:
        """Let a worker go that has committed its last window, or rests; rounds no longer wait for it."""
        worker = request.worker
        if self._finite.failure is not None:
            return [(worker, Refused(self._finite.failure))]
        if not (record.left or (record.rests and request.rests)):
            # The worker joined a server that has been killed since, and may have to train again.
            if not record.joined:
                return [(worker, Rejoin())]
            record.joined, record.left, record.rests = False, not request.rests, request.rests
            self._rounds.withdraw(worker)
            self._decisions.forget(worker)
            self._vector.forget(worker)
            self._report(WorkerLeft(worker, self._event_log.clock(), request.rests))
            self._end_if_all_left()
        return [(worker, Done()), *self._rounds.close()]

    def let_absent_leave(self) -> None:
        """Count the shares that no process trains as left: the driver has ordered to stop."""
        for worker, record in self._records.by_worker.items():
            with record.lock:
                if not (record.joined or record.left):
                    record.left, record.rests = True, False
                    self._report(WorkerLeft(worker, self._event_log.clock()))
        self._end_if_all_left()

    def _end_if_all_left(self) -> None:
        """Look at the center, which the driver reads next, if every worker has left."""
        if not all(each.left for each in self._records):
            return
        self._finite.check(self._event_log)
        if self._fragment == self._num_fragments - 1:  # It is the last one that they leave.
            self._event_log.add(*self._epochs.left(self._decisions.commits, self._event_log.num_updates))

    def lose(self, worker: int, silence: float, record: WorkerRecord) -> bool:
        """Record that `worker` has sent nothing for `silence` seconds; return whether that is new."""
        if record.left or record.lost:
            return False
        record.lost = record.missed = True
        self._report(WorkerLost(worker, silence, self._event_log.clock()))
        return True

    def center_for(self, request: Join) -> Vector:
        """Return a copy of the center, from which the sender of `request` starts."""
        center = np.empty(self._vector.size, self._vector.dtype)
        self._vector.pull(self._decisions.pull(request), request.worker, center)
        return center
