"""What becomes of a worker's commit: it is applied, waits in a round, is answered again, or is refused."""

from __future__ import annotations

from distkeras.algorithms import TAKE
from distkeras.center.answers import Answer, Exchanged, Refused, Rejoin, Skipped
from distkeras.center.bad_updates import noting_errors
from distkeras.center.checks import ProtocolError
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Decisions
from distkeras.center.event_log import EventLog
from distkeras.center.finite import Finite
from distkeras.center.ledger import WorkerRecord
from distkeras.center.norms import Norms
from distkeras.center.requests import Exchange
from distkeras.center.rounds import Rounds
from distkeras.center.sharded import Sharded
from distkeras.events import UpdateRefused


class Commits:
    """Handles the commits of a center. The caller holds the lock of the worker's record.

    Args:
        config: settings of the center.
        decisions: decides on each message.
        rounds: the open round of a synchronous algorithm.
        vector: the center.
        finite: checks the center after a message.
        event_log: receives the events.
        norms: sees each message that is not refused.
        fragment: index of the fragment that this is the center of.
        num_fragments: number of fragments, which workers commit in turn.
    """

    def __init__(
        self,
        config: CenterConfig,
        decisions: Decisions,
        rounds: Rounds,
        vector: Sharded,
        finite: Finite,
        event_log: EventLog,
        norms: Norms,
        fragment: int,
        num_fragments: int,
    ) -> None:
        self._config = config
        self._decisions = decisions
        self._rounds = rounds
        self._vector = vector
        self._finite = finite
        self._event_log = event_log
        self._norms = norms
        self._fragment, self._num_fragments = fragment, num_fragments

    def handle(self, request: Exchange, record: WorkerRecord) -> list[Answer]:
        """Handle a commit and return the answers, by worker.

        Raises:
            ProtocolError: it is not the worker's next commit, nor one that the center has.
        """
        if self._finite.failure is not None:
            return [(request.worker, Refused(self._finite.failure))]
        if not record.joined:
            return [(request.worker, Rejoin())]
        last = record.sequence
        # A worker that continues from the progress of another server of the job repeats older commits.
        if 0 < request.sequence <= last:
            self._pull(request)
            again = Exchanged(request.message, 0, True, request.sequence, self._fragment)
            return [(request.worker, again)]
        following = last + self._num_fragments if last else self._fragment + 1
        if request.sequence != following:
            raise ProtocolError(
                f"Expected commit {following} of worker {request.worker}. Received: {request.sequence}"
            )
        reason = self._config.bad_updates.reason_to_refuse(request.message, request.metrics)
        if reason is not None:
            return [(request.worker, self._refuse(request, record, reason))]
        if self._norms.wanted:
            self._norms.see(request.message)
        if self._config.algorithm.synchronous:
            return self._rounds.add(request)
        return self._apply(request, record)

    def _apply(self, request: Exchange, record: WorkerRecord) -> list[Answer]:
        decision = self._decisions.commit(request)
        copy, noted = noting_errors(self._vector.exchange, request.message, decision)
        log = self._event_log
        if noted and (failure := self._finite.after([request], log)):
            return failure
        (staleness,) = decision.staleness
        committed = record.commit(request, staleness, decision.commit, log.clock, log.windows)
        log.commit(committed, 1 if decision.commit.verdict is TAKE else 0)
        if decision.kept or decision.ended:
            log.add(*self._decisions.boundaries(copy, decision, log.clock()))
        reply = Exchanged(request.message, staleness, False, request.sequence, self._fragment)
        return [(request.worker, reply)]

    def _refuse(self, request: Exchange, record: WorkerRecord, reason: str) -> Refused | Skipped:
        """Report a bad update; skip its window if the settings say so."""
        log, bad_updates = self._event_log, self._config.bad_updates
        worker, epoch, iteration = request.worker, request.window_epoch, request.sequence - 1
        log.add(UpdateRefused(worker, epoch, iteration, reason, log.clock()))
        record.refused += 1
        # If the center holds NaN, so do the messages computed from it.
        if (failure := self._finite.check(log)) is not None:
            return Refused(f"{reason}: {failure}")
        if bad_updates.action == "raise":
            return Refused(reason)
        if record.refused > bad_updates.limit:
            return Refused(f"{reason}, after {bad_updates.limit} skipped windows")
        log.add(*record.advance(request, (request.window[0], 0), log.clock))
        self._pull(request)
        return Skipped(request.message, reason)

    def _pull(self, request: Exchange) -> None:
        """Overwrite the message with the center, from which its sender starts."""
        self._vector.pull(self._decisions.pull(request), request.worker, request.message)
