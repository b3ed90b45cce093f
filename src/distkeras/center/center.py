"""The center variable: handles requests and returns answers. It has no sockets, threads or clock."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from distkeras.algorithms import Vector
from distkeras.center.answers import Answer, Done, LogEntry, Place, Rejoin
from distkeras.center.attendance import Attendance
from distkeras.center.checks import ProtocolError, check_exchange
from distkeras.center.commits import Commits
from distkeras.center.config import CenterConfig
from distkeras.center.decisions import Counts, Decisions
from distkeras.center.driver import ForDriver
from distkeras.center.epochs import Epochs
from distkeras.center.event_log import EventLog
from distkeras.center.finite import Finite
from distkeras.center.holding import Holding
from distkeras.center.ledger import WorkerRecord
from distkeras.center.norms import Norms
from distkeras.center.records import Records
from distkeras.center.reports import Reports
from distkeras.center.request_log import RequestLog
from distkeras.center.requests import (
    Beat,
    Dismiss,
    Exchange,
    Fail,
    Join,
    Leave,
    MayJoin,
    Order,
    Report,
    Request,
)
from distkeras.center.rounds import Rounds
from distkeras.center.sharded import Sharded
from distkeras.center.snapshot import CenterState, SnapshotError
from distkeras.center.standing_orders import StandingOrders
from distkeras.events import EpochEnded, Event, Reported, WorkerFailed


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
        algorithm: the algorithm that applies the messages.
        num_workers: number of workers.
        workers: their indices.
        size: number of elements of the center.
        dtype: data type of the center.
        shards: its shards.
        request_log: the order of the requests, for other servers of the job; `None` if there are none.
        norms: measures messages now and then.
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
        self.event_log = EventLog(clock) if event_log is None else event_log
        self.fragment, self._num_fragments = fragment, num_fragments
        self.algorithm, self.num_workers = config.algorithm, config.num_workers
        self.workers = range(first_worker, first_worker + config.num_workers)
        self.request_log = request_log
        self.norms = Norms()
        self._vector = Sharded(config, initial, num_shards)
        self.size, self.dtype, self.shards = self._vector.size, self._vector.dtype, self._vector.shards
        self._epochs = Epochs(config, self.event_log.clock, first_worker) if epochs is None else epochs
        self._reports = Reports() if reports is None else reports
        together = self.algorithm.synchronous
        self._records = Records(self.workers, together, self._reports, self._report, self.event_log.clock)
        training = None if config.elastic is None else self._records.training
        present = self._records.present if config.elastic is None else self._records.training_now
        self._decisions = Decisions(config, self._epochs, request_log, training, present)
        self.finite = Finite(self._vector)
        by_worker = self._records.by_worker
        self._orders = StandingOrders(self.algorithm, by_worker, self._decisions.kept)
        # Before the driver's first order, neither its settings nor the algorithm change an answer.
        self._is_undirected = config.until is None and not self._orders.chooses_windows
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
        self._for_driver = ForDriver(
            config,
            self._vector,
            self._records,
            self._decisions,
            self._orders,
            self._holding,
            self._reports,
            self.event_log,
            num_fragments,
        )
        self._attendance = Attendance(
            config,
            self._records,
            self._decisions,
            self._rounds,
            self._vector,
            self._epochs,
            self.finite,
            self.event_log,
            self._report,
            fragment,
            num_fragments,
        )
        self._commits = Commits(
            config,
            self._decisions,
            self._rounds,
            self._vector,
            self.finite,
            self.event_log,
            self.norms,
            fragment,
            num_fragments,
        )

    @property
    def members(self) -> list[Center]:
        """This center alone; `Independent` has one center per member of an ensemble."""
        return [self]

    @property
    def num_updates(self) -> int:
        """Number of messages taken so far; a synchronous round counts once."""
        return self.event_log.num_updates

    @property
    def num_commits(self) -> int:
        """Number of messages decided so far: taken, buffered or discarded. A round counts once."""
        return self._decisions.commits

    @property
    def num_samples(self) -> int:
        """Number of rows in all messages decided so far."""
        return self._decisions.samples

    @property
    def all_left(self) -> bool:
        """Whether every worker has committed its last window."""
        return all(record.left for record in self._records)

    @property
    def last_epoch(self) -> EpochEnded | None:
        """The last epoch that has ended; `None` for none, and for fragments other than the first."""
        return self._epochs.last if self.fragment == 0 else None

    def snapshot(self) -> Vector:
        """Return a copy of the center, between two messages."""
        return self._vector.read(self._decisions.read())

    def put(self, center: Vector) -> None:
        """Put a new `center` in place, between two messages; the rule's state and the workers stay."""
        self._vector.write(self._decisions.read(), center)

    def obeying(self, given: LogEntry) -> contextlib.AbstractContextManager[None]:
        """Decide as another server has `given`, in a block that handles one request."""
        return self._decisions.obeying(given)

    def held(self) -> dict[int, tuple[int, ...]]:
        """Return how many updates ago each worker received what it trains from, oldest window first."""
        return self._decisions.held()

    def expected(self) -> list[int]:
        """Return the workers that have committed at least one window but have not left."""
        return self._records.expected()

    @property
    def holds(self) -> bool:
        """Whether workers wait for the driver's decision."""
        return bool(self._holding.workers)

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """Block all commits in a `with` block, so that the center and the ledger agree."""
        return self._records.paused()

    def state(self) -> CenterState:
        """Return a copy of the center and its ledger. Open rounds and the workers' copies are not saved.

        Raises:
            SnapshotError: the center is not finite, or the algorithm failed after it had applied a part of a
                message.
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
        answers = self._in_order(request) if type(request) is Exchange else self._handle(request)
        return self._passed_on(answers, request)

    def _passed_on(self, answers: list[Answer], request: Request | Dismiss | None = None) -> list[Answer]:
        """Return the answers that go out now, with the orders in force."""
        if self._is_undirected and self._orders.orders is None:  # The usual case costs an exchange nothing.
            return answers
        going = self._holding.pass_on(answers, request)
        if going is not answers and len(going) < len(answers) and self._for_driver.keep_what_is_due():
            going += self._holding.look()  # It may have been ordered to be evaluated.
        return self._orders.added_to(going)

    def _handle(self, request: Request | Dismiss) -> list[Answer]:
        match request:
            case Exchange() | Join() | Leave():
                return self._in_order(request)
            case Beat():
                self._records.beat(request)
                return [(request.worker, Done(self._dropped(request.worker)))]
            case Fail():
                self._records.of(request.worker)
                self._report(WorkerFailed(request.worker, request.error, self.event_log.clock()))
                return [(request.worker, Done())]
            case Dismiss():
                with self.paused():
                    again = [(worker, Rejoin()) for worker in self._rounds.abandon()]
                    return [*again, *self._holding.dismiss()]
            case Report():
                return self._take_report(request)
            case Order():
                answers = self._for_driver.handle(request)
                orders = self._orders.orders
                if self.config.elastic is not None and orders is not None and orders.stop:
                    self._attendance.let_absent_leave()
                return answers
            case MayJoin():
                return [(request.worker, self._place(request.worker))]
            case _:
                return self._for_driver.handle(request)

    def _in_order(self, request: Exchange | Join | Leave) -> list[Answer]:
        """Handle a request whose place among all requests matters, and log it for other servers."""
        record = self._records.of(request.worker)
        with record.lock:
            if isinstance(request, Exchange):
                answers = self._exchange(request, record)
            elif isinstance(request, Join):
                answers = self._attendance.join(request, record)
            else:
                answers = self._attendance.leave(request, record)
            if self.request_log is not None:  # Here, so that no exit can forget it.
                answered = any(worker == request.worker for worker, _ in answers)
                self._decisions.note(request, waits=isinstance(request, Exchange) and not answered)
            return answers

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
        """Close the open round if its grace is over; return the answers, by worker.

        A center that obeys another server closes it now, because that server has.
        """
        with next(iter(self._records)).lock:
            rounds = self._rounds
            answers = rounds.close_as_told() if self._decisions.obeys else rounds.close_late()
            return self._passed_on(answers)

    def stale(self) -> list[int]:
        """Return the workers that are to drop the window that they train; none unless the algorithm stops."""
        return [worker for worker in self.workers if self._dropped(worker) >= 0]

    def _dropped(self, worker: int) -> int:
        """Return the number of the worker's last commit if it is to drop the window after it, else -1."""
        if not self.algorithm.stops:
            return -1
        # Read first: if the worker commits meanwhile, the number is not that of its window.
        sequence = self._records.of(worker).sequence
        return sequence if self._decisions.would_discard(worker) else -1

    def pull(self, worker: int) -> Vector:
        """Return a copy of the center, from which `worker` starts."""
        with self._records.of(worker).lock:
            return self._attendance.center_for(Join(worker))

    def norm(self) -> float:
        """Return the Euclidean norm of the center, which may change meanwhile: no commit waits for it."""
        return self._vector.norm()

    def learns(self, beat: Beat) -> bool:
        """Return whether a heartbeat tells anything that the center does not know."""
        return self._records.learns(beat)

    def misses(self, worker: int) -> bool:
        """Return whether the next message of `worker` reports it as back after a loss or a server restart."""
        return self._records.of(worker).missed

    def _report(self, event: Event) -> None:
        """Report what concerns a worker; of several fragments, the first does it for all."""
        if self.fragment == 0:
            self.event_log.add(event)

    def _place(self, worker: int) -> Place:
        record, orders = self._records.of(worker), self._orders.orders
        with record.lock:
            stopped = orders is not None and orders.stop
            return Place(record.epoch, record.step, left=record.left or record.rests, stopped=stopped)

    def _exchange(self, request: Exchange, record: WorkerRecord) -> list[Answer]:
        check_exchange(request, self.size, self.fragment)
        if record.missed:
            self._records.hear(request.worker, record)
        if not self.algorithm.synchronous:
            return self._commits.handle(request, record)
        late = self._rounds.close_late()
        if any(receiver == request.worker for receiver, _ in late):  # It was there, and was sent again.
            return late
        return [*late, *self._commits.handle(request, record)]

    def _take_report(self, request: Report) -> list[Answer]:
        worker, record = request.worker, self._records.of(request.worker)
        with record.lock:
            self._records.hear(worker, record)
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

    def mark_lost(self, worker: int, silence: float) -> list[Answer]:
        """Record that `worker` has sent nothing for `silence` seconds; return the answers, by worker.

        The worker's next message brings it back. The loss may complete an open round for the others.
        """
        record = self._records.of(worker)
        with record.lock:
            if not self._attendance.lose(worker, silence, record):
                return []
            answers = self._passed_on(self._rounds.close())
            self._decisions.note_lost(worker)
            return answers
