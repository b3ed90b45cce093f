"""The center variable: handles requests and returns answers. It has no sockets, threads or clock."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center.bad_updates import ErrorsNoted
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Counts, Decisions
from distkeras.center.epochs import Epochs
from distkeras.center.event_log import EventLog
from distkeras.center.finite import Finite
from distkeras.center.holding import Holding
from distkeras.center.ledger import WorkerRecord
from distkeras.center.messages import (
    DRIVER,
    MAX_STATES,
    Answer,
    Beat,
    Dismiss,
    Done,
    Exchange,
    Exchanged,
    Fail,
    Fetch,
    Follow,
    Join,
    Joined,
    Keep,
    Leave,
    Order,
    Ordered,
    Poll,
    Pull,
    Pulled,
    Refused,
    Rejoin,
    Report,
    Request,
    Skipped,
    Write,
)
from distkeras.center.orders import check_orders
from distkeras.center.reports import Reports
from distkeras.center.request_log import RequestLog
from distkeras.center.rounds import Rounds
from distkeras.center.shard import Shard
from distkeras.center.sharded import Sharded
from distkeras.center.snapshot import CenterState, SnapshotError
from distkeras.center.standing_orders import StandingOrders
from distkeras.center.writing import write
from distkeras.events import (
    EpochEnded,
    Event,
    Reported,
    UpdateRefused,
    WorkerBack,
    WorkerFailed,
    WorkerJoined,
    WorkerLeft,
    WorkerLost,
)


class ProtocolError(Exception):
    """A request that no worker of this job sends: unknown worker, wrong sequence number or wrong size."""


class Center:
    """The server's logic. It is deterministic: the simulator and the tests run the same code as production.

    Several threads may call `handle`, one per worker. A synchronous algorithm answers its workers when the
    round is complete: the call that completes the round returns the answers to all of them.

    Args:
        config: settings that decide the result.
        initial: the first center, shape (size,); copied.
        clock: seconds since the epoch, for the timestamps of events and the grace of rounds.
        num_shards: number of shards; chosen by size by default.
        first_worker: index of the center's first worker.
        event_log: receives the events; a new log by default.
        request_log: receives the order of the requests, for other servers; `None` if there are none.
        epochs: counts the rows of the center; by default its own.
        reports: what the workers report; by default only for this center.
        fragment: index of the fragment that this is the center of; see `Fragmented`.
        num_fragments: number of fragments, which workers commit in turn.

    Attributes:
        finite: check that the center is finite. After a failure the center refuses every commit and every
            snapshot.
        clock: tells the time for the grace of rounds. A record has it tell the time of its steps.
    """

    def __init__(
        self,
        config: CenterConfig,
        initial: Vector,
        *,
        clock: Callable[[], float],
        num_shards: int | None = None,
        first_worker: int = 0,
        event_log: EventLog | None = None,
        request_log: RequestLog | None = None,
        epochs: Epochs | None = None,
        reports: Reports | None = None,
        fragment: int = 0,
        num_fragments: int = 1,
    ) -> None:
        self.config = config
        self.clock = clock
        self._first_worker = first_worker
        self.event_log = EventLog(clock) if event_log is None else event_log
        self.fragment, self._num_fragments = fragment, num_fragments
        self._vector = Sharded(config, initial, num_shards)
        self._epochs = Epochs(config, self.event_log.clock, first_worker) if epochs is None else epochs
        self._reports = Reports() if reports is None else reports
        self._decisions = Decisions(config, self._epochs, request_log)
        self.finite = Finite(self._vector)
        # A synchronous round moves all its workers at once, so they share one lock.
        shared = threading.RLock()
        self._records = [
            WorkerRecord(shared if self.algorithm.synchronous else threading.RLock(), self._reports)
            for _ in range(config.num_workers)
        ]
        by_worker = dict(zip(self.workers, self._records, strict=True))
        self._orders = StandingOrders(self.algorithm, by_worker)
        self._holding = Holding(
            config.until,
            self._orders,
            lambda: self._decisions.samples,
            lambda worker: by_worker[worker].sequence,
        )
        self._rounds = Rounds(
            config,
            by_worker,
            self._decisions,
            self._vector,
            self.finite,
            self.event_log,
            lambda: self.clock(),
        )

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that applies the messages."""
        return self.config.algorithm

    @property
    def num_workers(self) -> int:
        """Number of workers."""
        return self.config.num_workers

    @property
    def size(self) -> int:
        """Number of elements of the center."""
        return self._vector.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the center."""
        return self._vector.dtype

    @property
    def shards(self) -> list[Shard]:
        """The shards of the center."""
        return self._vector.shards

    @property
    def members(self) -> list[Center]:
        """This center alone; `Independent` has one center per member of an ensemble."""
        return [self]

    @property
    def workers(self) -> range:
        """Indices of the center's workers."""
        return range(self._first_worker, self._first_worker + self.num_workers)

    @property
    def num_updates(self) -> int:
        """Number of messages taken so far; a synchronous round counts once."""
        return self.event_log.num_updates

    @property
    def num_commits(self) -> int:
        """Number of messages decided so far: taken, buffered or discarded. A round counts once."""
        return self._decisions.commits

    @property
    def last_epoch(self) -> EpochEnded | None:
        """The last epoch that has ended; `None` for none, and for fragments other than the first."""
        return self._epochs.last if self.fragment == 0 else None

    def snapshot(self) -> Vector:
        """Return a copy of the center, between two messages."""
        return self._vector.read(self._decisions.read())

    @property
    def request_log(self) -> RequestLog | None:
        """The order of the requests, for other servers of the job; `None` if there are none."""
        return self._decisions.log

    def obeying(self, given: Ordered) -> contextlib.AbstractContextManager[None]:
        """Decide as another server has `given`, in a block that handles one request."""
        return self._decisions.obeying(given)

    def held(self) -> dict[int, tuple[int, ...]]:
        """Return how many updates ago each worker received what it trains from, oldest window first."""
        return self._decisions.held()

    def expected(self) -> list[int]:
        """Return the workers that have committed at least one window but have not left."""
        return [
            worker
            for worker, record in enumerate(self._records, start=self._first_worker)
            if record.sequence and not record.left
        ]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Block all commits in a `with` block, so that the center and the ledger agree."""
        with contextlib.ExitStack() as stack:
            for record in self._records:
                stack.enter_context(record.lock)
            yield

    def state(self) -> CenterState:
        """Return a copy of the center and its ledger. Open rounds and the workers' copies are not saved.

        Raises:
            SnapshotError: the center is not finite, or the algorithm failed with a message half applied.
        """
        if self.finite.failure is not None:
            raise SnapshotError(self.finite.failure)
        with self.paused():
            vector, states = self._vector.state()
            counts = dataclasses.asdict(self._decisions.counts)
            records = [record.saved() for record in self._records]
            orders, first = self._orders.orders, self.fragment == 0  # The first one saves what all share.
            epochs, reports = (self._epochs.saved(), self._reports.states()) if first else (None, {})
            return CenterState(vector, states, counts, records, orders, epochs, reports)

    def restore(self, state: CenterState) -> None:
        """Continue from `state`, before the first request; every worker has to join again.

        Raises:
            SnapshotError: `state` has another size, algorithm or number of workers.
        """
        if len(state.workers) != self.num_workers:
            raise SnapshotError(
                f"Expected a snapshot of {self.num_workers} workers. Received: {len(state.workers)}"
            )
        self._vector.restore(state.center, state.states)
        self._decisions.restore(Counts(**state.counts))
        self._orders.orders = state.orders
        if self.fragment == 0:
            self._epochs.restore(state.epochs, state.counts["samples"])
            self._reports.restore(state.reports)
        for record, saved in zip(self._records, state.workers, strict=True):
            record.restore(saved)

    def handle(self, request: Request | Dismiss) -> list[Answer]:
        """Handle one request and return the answers, by worker. An open synchronous round has no answers yet.

        Raises:
            ProtocolError: no worker of this job sends such a request. The center is unchanged.
        """
        return self._passed_on(self._handle(request), request)

    def _passed_on(self, answers: list[Answer], request: Request | Dismiss | None = None) -> list[Answer]:
        """Return the answers that go out now, with the orders in force."""
        return self._orders.added_to(self._holding.pass_on(answers, request))

    def _handle(self, request: Request | Dismiss) -> list[Answer]:
        match request:
            case Exchange():
                return self._exchange(request)
            case Join():
                return self._join(request)
            case Leave():
                return self._leave(request)
            case Beat():
                self._hear(request.worker, self._record(request.worker))
                return [(request.worker, Done())]
            case Fail():
                self._record(request.worker)
                self._report(WorkerFailed(request.worker, request.error, self.event_log.clock()))
                return [(request.worker, Done())]
            case Pull():
                return [(DRIVER, self._pulled(request.kept))]
            case Poll():
                return [(DRIVER, self.event_log.read(request.since))]
            case Follow():
                if self.request_log is None:
                    raise ProtocolError("Expected no server to follow this one.")
                page = self.request_log.read(request.leader, request.since)
                if page.anew:  # The other server may have lost its parts of the copies.
                    self._decisions.kept.make_again()
                return [(DRIVER, page)]
            case Order():
                return self._order(request)
            case Dismiss():
                return self._dismiss()
            case Keep():
                if request.samples < 1:
                    raise ProtocolError(f"Expected a number of rows. Received: samples={request.samples}")
                self._decisions.kept.want(request.samples)
                return [(DRIVER, Done())]
            case Write():
                return self._write(request)
            case Report():
                return self._take_report(request)
            case Fetch():
                return [(DRIVER, self._reports.fetch(request))]

    @property
    def due(self) -> float | None:
        """Time, by the clock, at which the grace of the open round is over; `None` if none has begun."""
        return self._rounds.due

    def seconds_left(self) -> float | None:
        """Return after how many seconds to call `look`: 0 for now; `None` for not before the next request."""
        due = self.due
        if due is None:
            return None
        left = due - self.event_log.clock()
        return left if 0 < left <= self.config.grace else 0.0  # More is left only if the clock was set back.

    def look(self) -> list[Answer]:
        """Close the open round if its grace is over; return the answers, by worker."""
        with self._records[0].lock:
            return self._passed_on(self._rounds.close_late())

    def pull(self, worker: int) -> Vector:
        """Return a copy of the center, from which `worker` starts."""
        with self._record(worker).lock:
            return self._received(Join(worker))

    def misses(self, worker: int) -> bool:
        """Return whether the next message of `worker` reports it as back after a loss or a server restart."""
        return self._record(worker).missed

    def _record(self, worker: int) -> WorkerRecord:
        index = worker - self._first_worker
        if not 0 <= index < self.num_workers:
            last = self._first_worker + self.num_workers - 1
            raise ProtocolError(
                f"Expected a worker in {self._first_worker}..{last}. Received: worker={worker}"
            )
        return self._records[index]

    def _report(self, event: Event) -> None:
        """Report what concerns a worker; of several fragments, the first does it for all."""
        if self.fragment == 0:
            self.event_log.add(event)

    def _hear(self, worker: int, record: WorkerRecord) -> None:
        """Record that `worker` is alive."""
        if not record.missed:  # The usual case takes no lock: an exchange may hold it for long.
            return
        with record.lock:
            if record.missed:
                record.lost = record.missed = False
                self._report(WorkerBack(worker, self.event_log.clock()))

    def _join(self, request: Join) -> list[Answer]:
        worker, record = request.worker, self._record(request.worker)
        if request.layout != self.config.layout and request.layout and self.config.layout:
            reason = f"expected the layout {self.config.layout} of the weights. Received: {request.layout}"
            self._decisions.note(request.worker, request.call)
            return [(worker, Refused(reason))]
        with record.lock:
            late = self._rounds.close_late()
            # The predecessor's message in an open round got no answer: the replacement repeats that window.
            self._rounds.withdraw(worker)
            record.joined, record.lost, record.missed, record.refused = True, False, False, 0
            record.left = False
            center = self._received(request)
            if self._num_fragments == 1:  # The place of several is not that of one of them.
                self._report(
                    WorkerJoined(worker, request.attempt, record.epoch, record.step, self.event_log.clock())
                )
            return [*late, (worker, Joined(center, record.sequence, record.epoch, record.step))]

    def _leave(self, request: Leave) -> list[Answer]:
        record = self._record(request.worker)
        with record.lock:
            if self.finite.failure is not None:
                self._decisions.note(request.worker, request.call)
                return [(request.worker, Refused(self.finite.failure))]
            if not record.left:
                # The worker joined a server that has been killed since, and may have to train again.
                if not record.joined:
                    self._decisions.note(request.worker, request.call)
                    return [(request.worker, Rejoin())]
                record.joined, record.left = False, True
                self._rounds.withdraw(request.worker)
                self._decisions.forget(request.worker)
                self._vector.forget(request.worker)
                self._report(WorkerLeft(request.worker, self.event_log.clock()))
                if all(each.left for each in self._records):  # The driver reads the center next.
                    self.finite.check(self.event_log)
                    if self.fragment == self._num_fragments - 1:  # It is the last one that they leave.
                        self.event_log.add(*self._epochs.left(self.num_commits, self.num_updates))
            answers = self._rounds.close()
            self._decisions.note(request.worker, request.call)
            return [(request.worker, Done()), *answers]

    def _exchange(self, request: Exchange) -> list[Answer]:
        worker, record = request.worker, self._record(request.worker)
        if request.message.shape != (self.size,):
            raise ProtocolError(f"Expected {self.size} elements. Received: {request.message.shape}")
        if request.num_steps < 1 or request.num_samples < 0 or min(request.window) < 0:
            raise ProtocolError(
                "Expected a window of at least one step. "
                f"Received: num_steps={request.num_steps}, num_samples={request.num_samples}, "
                f"window={request.window}"
            )
        if request.fragment != self.fragment:
            raise ProtocolError(f"Expected fragment {self.fragment}. Received: {request.fragment}")
        if len(request.states) % 8 or len(request.states) > MAX_STATES:
            raise ProtocolError(
                f"Expected at most {MAX_STATES} bytes of float64 states. Received: {len(request.states)}"
            )
        if not 0 <= request.seconds < math.inf:
            raise ProtocolError(
                f"Expected the time of a window, at least 0 and finite. Received: seconds={request.seconds}"
            )
        with record.lock:
            self._hear(worker, record)
            if late := self._rounds.close_late():  # The request came too late for that round.
                known = any(receiver == worker for receiver, _ in late)  # It was there, and was sent again.
                return late if known else [*late, *self._exchange(request)]
            if self.finite.failure is not None:
                self._decisions.note(request.worker, request.call)
                return [(worker, Refused(self.finite.failure))]
            if not record.joined:
                self._decisions.note(request.worker, request.call)
                return [(worker, Rejoin())]
            last = record.sequence
            # A worker that continues from the progress of another server of the job repeats older commits.
            if 0 < request.sequence <= last:
                self._pull(request, request.message)
                return [(worker, Exchanged(request.message, 0, True, request.sequence, self.fragment))]
            following = last + self._num_fragments if last else self.fragment + 1
            if request.sequence != following:
                raise ProtocolError(
                    f"Expected commit {following} of worker {worker}. Received: {request.sequence}"
                )
            reason = self.config.bad_updates.reason_to_refuse(request.message, request.metrics)
            if reason is not None:
                reply = self._refuse(request, record, reason)
                if isinstance(reply, Refused):
                    self._decisions.note(request.worker, request.call)
                return [(worker, reply)]
            if self.algorithm.synchronous:
                answers = self._rounds.add(request)
                self._decisions.note(request.worker, request.call)
                return answers
            decision = self._decisions.commit(request)
            with ErrorsNoted() as noted:
                copy = self._vector.exchange(request.message, decision)
            if noted and (failure := self.finite.after([request], self.event_log)):
                return failure
            (staleness,) = decision.staleness
            committed = record.commit(request, staleness, decision.commit, self.event_log.clock())
            self.event_log.add(*committed, updates=decision.updates)
            if decision.kept or decision.ended:
                self.event_log.add(*self._decisions.boundaries(copy, decision, self.event_log.clock()))
            return [(worker, Exchanged(request.message, staleness, False, request.sequence, self.fragment))]

    def _pulled(self, kept: int) -> Pulled | Refused:
        if not kept:
            return Pulled(self.snapshot(), self.num_updates)
        copy = self._decisions.kept.get(kept)
        if copy is None:
            return Refused(f"there is no copy of the center at {kept} rows")
        return Pulled(copy.center, copy.num_updates)

    def _dismiss(self) -> list[Answer]:
        with self.paused():
            again = [(worker, Rejoin()) for worker in self._rounds.abandon()]
            return [*again, *self._holding.dismiss()]

    def _order(self, request: Order) -> list[Answer]:
        try:
            check_orders(request.orders)
        except ValueError as error:
            raise ProtocolError(str(error)) from error
        if request.orders.until is not None and (self._num_fragments > 1 or self.config.overlap):
            raise ProtocolError("Expected no `until` for a center with fragments or overlap.")
        self._orders.change(request.orders)
        return [(DRIVER, Done()), *self._holding.take()]

    def _write(self, request: Write) -> list[Answer]:
        if request.center.shape != (self.size,) or self._num_fragments > 1:
            raise ProtocolError(f"Expected one whole vector. Received: shape {request.center.shape}")
        by_worker = dict(zip(self.workers, self._records, strict=True))
        with self.paused():
            reply = write(request, self._vector, self._decisions, self._holding, by_worker)
        return [(DRIVER, reply)]

    def _take_report(self, request: Report) -> list[Answer]:
        worker, record = request.worker, self._record(request.worker)
        with record.lock:
            self._hear(worker, record)
            if not record.joined:
                return [(worker, Rejoin())]
            try:
                evaluation = self._reports.take(request)
            except ValueError as error:
                raise ProtocolError(str(error)) from error
            if evaluation is not None:
                reported = Reported(worker, "evaluation", *evaluation.facts, self.event_log.clock())
                self.event_log.add(reported)
            return [(worker, Done())]

    def _received(self, request: Join) -> Vector:
        """Return a copy of the center, from which the sender of `request` starts."""
        center = np.empty(self.size, self.dtype)
        self._pull(request, center)
        return center

    def _pull(self, request: Join | Exchange, out: Vector) -> None:
        """Copy the center to `out`, from which the sender of `request` starts."""
        self._vector.pull(self._decisions.pull(request), request.worker, out)

    def _refuse(self, request: Exchange, record: WorkerRecord, reason: str) -> Refused | Skipped:
        """Report a bad update; skip its window if the settings say so."""
        worker, epoch, iteration = request.worker, request.window_epoch, request.sequence - 1
        self.event_log.add(UpdateRefused(worker, epoch, iteration, reason, self.event_log.clock()))
        record.refused += 1
        # If the center holds NaN, so do the messages computed from it.
        if (failure := self.finite.check(self.event_log)) is not None:
            return Refused(f"{reason}: {failure}")
        if self.config.bad_updates.action == "raise":
            return Refused(reason)
        if record.refused > self.config.bad_updates.limit:
            return Refused(f"{reason}, after {self.config.bad_updates.limit} skipped windows")
        self.event_log.add(*record.advance(request, 0, self.event_log.clock()))
        self._pull(request, request.message)
        return Skipped(request.message, reason)

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """Record that `worker` has sent nothing for `silence` seconds; return the answers, by worker.

        The worker's next message brings it back. The loss may complete an open round for the others.
        """
        record = self._record(worker)
        with record.lock:
            if record.left or record.lost:
                return []
            record.lost = record.missed = True
            self._report(WorkerLost(worker, silence, self.event_log.clock()))
            answers = self._passed_on(self._rounds.close())
            self._decisions.note(worker, 0)
            return answers
