"""The event loop of a simulation: messages arrive by their times, and the center handles them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center import Center, CenterConfig, Fragmented, restore_snapshot, take_snapshot
from distkeras.center.answers import Answer, Exchanged, Joined, Polled, Refused, Rejoin, Reply
from distkeras.center.fragments import Behind
from distkeras.center.requests import DRIVER, Exchange, Join, Poll
from distkeras.events import Event
from distkeras.record import Recorded
from distkeras.simulation.conditions import Failures, Network, Outages
from distkeras.simulation.exchanges import Exchanges
from distkeras.simulation.outages import Moment, Schedule
from distkeras.simulation.problem import Problem, Replica
from distkeras.simulation.recorder import Recorder
from distkeras.simulation.result import Result
from distkeras.simulation.state import Arrival, Inner, VirtualClock, Worker
from distkeras.simulation.step_time import WindowTime
from distkeras.simulation.transit import Transit

POLL_EVERY = 1024
"""Commits between two reads of the center's event log, which would otherwise grow with the run."""


@dataclass
class Simulation:
    """Runs the workers of one job in the order in which their messages arrive.

    A window is trained when its commit arrives, from the weights stored for its worker: nothing can change
    them in between.

    Attributes:
        make_center: makes the first center, and the center of a restarted server before it is restored.
        config: settings of the center.
        outages: frequencies of process failures.
        schedule: times of process failures.
        record: file for every request, in order, for `distkeras.record.replay`; `None` for no record.
        on_event: receives every event of the center; `None` for nobody.
    """

    make_center: Callable[[], Center | Fragmented]
    clock: VirtualClock
    problem: Problem
    inner: Inner
    window_time: WindowTime
    network: Network
    failures: Failures
    faults: np.random.Generator
    outages: Outages
    schedule: Schedule
    recorder: Recorder
    config: CenterConfig
    diverged: bool = False
    record: str | None = None
    on_event: Callable[[Event], None] | None = None

    def __post_init__(self) -> None:
        self._recorded: Recorded | None = None
        self._begin(self.make_center())
        self._snapshot = take_snapshot(self.center, {})
        self._seen = 0
        self._workers: list[Worker] = []
        self._transit = Transit(self.network, [member.size for member in self.center.members])
        self._server_free = 0.0
        self._exchanges = Exchanges(self.problem, self.config)
        self._num_fragments = self.config.num_fragments
        self._joined: tuple[int, Vector] | None = None

    def commits(self, num_commits: int, until: float = math.inf) -> Iterator[None]:
        """Run, and yield after each commit, until there are `num_commits` or the center refuses one.

        Args:
            num_commits: number of commits; repeated ones count once.
            until: virtual seconds after which the run ends in any case.
        """
        self.recorder.evaluate(self.center.snapshot())
        for worker in range(self.center.num_workers):
            self._workers.append(self._start(worker))
            self._begin_window(worker, 0.0)
        for moment in Moment:
            self._expect(moment, 0.0)
        while self.center.num_commits < num_commits and not self.diverged:
            version = self.center.num_commits
            if (due := self._grace_before_next()) is not None:
                if due > until:
                    break
                self.clock.now = due
                self._take(DRIVER, version, self.look())
            else:
                time, worker, arrival = self._transit.pop()
                if isinstance(arrival, Moment):
                    if time > until:
                        break
                    self._happen(arrival, time)
                    continue
                # First come, first served: a message waits for earlier ones.
                served = max(time, self._server_free) + self.network.service
                if served > until:
                    break
                self.clock.now = self._server_free = served
                self._arrive(worker, arrival)
            if self.center.num_commits > version:
                if self.center.num_commits % POLL_EVERY == 0:
                    self._drop_events()
                yield
        self.recorder.evaluate(self.center.snapshot())

    def result(self) -> Result:
        """Return the trajectory so far."""
        return self.recorder.result(self.center.algorithm, self.center.num_workers, self.diverged)

    def _grace_before_next(self) -> float | None:
        """Return when the grace of the open round is over, if that is before the next message is handled."""
        due = self.center.due
        if due is None or (first := self._transit.next()) is None:
            return due
        time, arrival = first
        if not isinstance(arrival, Moment):
            time = max(time, self._server_free) + self.network.service
        return due if due <= time else None

    def _begin(self, center: Center | Fragmented, restart: bool = False) -> None:
        """Use a new `center` from now on."""
        self.center, self.handle, self.look = center, center.handle, center.look
        if self.record is not None:
            self._end_record()
            self._recorded = Recorded(center, self.record, restart=restart)
            self.handle, self.look = self._recorded.handle, self._recorded.look

    def close(self) -> None:
        """Read the last events, and end the record, if there is one."""
        self._drop_events()
        self._end_record()

    def _end_record(self) -> None:
        if self._recorded is not None:
            self._recorded.close()

    def _expect(self, moment: Moment, now: float) -> None:
        self._transit.push(self.schedule.next(moment, now), DRIVER, moment)

    def _happen(self, moment: Moment, time: float) -> None:
        """Handle an event of the whole job."""
        match moment:
            case Moment.SNAPSHOT:
                self._snapshot = take_snapshot(self.center, {})
            case Moment.SERVER_FAILS:
                self._restore(time + self.outages.server_restart)
            case Moment.JOB_FAILS:
                self._stop(time + self.outages.job_restart)
            case Moment.WORKERS_FAIL:
                self._stop(time + self.outages.worker_restart)
        self._expect(moment, time)

    def _restore(self, up: float) -> None:
        """Restart the server at `up` from its last snapshot; workers that wait for it send again."""
        self._drop_events()
        center = self.make_center()
        restore_snapshot(center, self._snapshot, self._seen)
        self._begin(center, restart=True)
        self._snapshot = take_snapshot(self.center, {})  # The center now owns the old one's arrays.
        self.recorder.roll_back(self.center.num_commits, self.center.snapshot())
        self._joined = None
        self._server_free = max(self._server_free, up)
        under_way = self._transit.workers()
        for worker in range(self.center.num_workers):
            if worker not in under_way:  # Its message was in an open round, which is lost.
                self._transit.push(up + self._transfer_of(worker), worker, Arrival.DUPLICATE)

    def _stop(self, up: float) -> None:
        """Stop all workers; they join again at `up`."""
        self._transit.drop_messages()
        for worker in range(self.center.num_workers):
            self._transit.push(up + self.network.latency, worker, Arrival.JOIN)
        self.recorder.num_stopped += 1

    def _start(self, worker: int, attempt: int = 0) -> Worker:
        """Join the center as a new process of `worker`."""
        [(_, joined)] = self.handle(Join(worker, attempt))
        if not isinstance(joined, Joined):
            raise TypeError(f"Expected Joined. Received: {joined!r}")
        version = self.center.num_commits
        if self._joined is None or self._joined[0] != version:
            joined.center.flags.writeable = False
            self._joined = (version, joined.center)
        inner = self.inner
        replica = Replica(
            worker=worker,
            num_workers=self.center.num_workers,
            learning_rate=inner.learning_rate,
            momentum=inner.momentum,
            seed=(inner.seed, 2, worker, attempt),
        )
        # Workers that join at the same version share one copy of it.
        return Worker(
            *(self._joined[1],) * 3,
            replica,
            Behind(self._num_fragments),
            self._length(joined),
            [{} for _ in range(self._num_fragments)],
            sequence=joined.sequence,
            step=joined.step,
            attempt=attempt,
        )

    def _length(self, answer: Joined | Exchanged) -> int:
        """Return the minibatch steps of the next window of the worker that gets `answer`."""
        return (answer.orders.window if answer.orders else None) or self.inner.window

    def _begin_window(self, worker: int, now: float, reply: float | None = None) -> None:
        """Schedule the arrival of the worker's next window, or of its replacement after a failure.

        Args:
            worker: index of the worker.
            now: start of the window.
            reply: arrival of the reply to the previous window, which the worker needs to send this one.
        """
        failures, state = self.failures, self._workers[worker]
        failed = None
        state.window = self._exchanges.next_steps(state)
        seconds = self.window_time(worker, state.window)
        if failures.straggle and self.faults.random() < failures.straggle:
            seconds *= failures.slowdown
        if failures.crash and self.faults.random() < failures.crash:
            failed = now + seconds * self.faults.random() + failures.restart
        elif (dead := self.schedule.failure_of(worker, now, now + seconds)) is not None:
            failed = dead + self.outages.worker_restart
        if failed is not None:
            self._transit.push(failed + self.network.latency, worker, Arrival.JOIN)
        else:
            # The steps that the worker trains without the reply, and then those for which it needs it.
            early = seconds * state.trained / state.window if self._exchanges.late else seconds
            needs_it = max(now + early, now if reply is None else reply)
            state.sent_at, state.seconds = needs_it + (seconds - early), seconds
            self._transit.push(state.sent_at + self._transfer_of(worker, 1), worker, Arrival.COMMIT)

    def _arrive(self, worker: int, arrival: Arrival) -> None:
        if arrival is Arrival.JOIN:
            self.recorder.num_crashes += 1
            self.recorder.bytes_received += 4 * self.center.size
            self.schedule.started(worker, self.clock.now)
            self._workers[worker] = self._start(worker, self._workers[worker].attempt + 1)
            self._begin_window(worker, self.clock.now + self._transit.whole)
            return
        state = self._workers[worker]
        if arrival is Arrival.DUPLICATE:
            self.recorder.num_duplicates += 1
        else:
            self._exchanges.train(worker, state)
        if state.sent is None:
            raise RuntimeError(f"Worker {worker} has nothing to send.")
        self.recorder.bytes_sent += state.sent.message.nbytes
        self._exchange(state.sent)

    def _transfer_of(self, worker: int, ahead: int = 0) -> float:
        """Return the transfer time of a worker's last message, or of the one `ahead` of it."""
        return self._transit.seconds(self._workers[worker].sequence + ahead)

    def _exchange(self, request: Exchange) -> None:
        """Pass a commit to the center, record the result, and send the answers back."""
        version = self.center.num_commits
        self._take(request.worker, version, self.handle(request))

    def _take(self, sender: int, version: int, answers: list[Answer]) -> None:
        """Record a commit since `version`, and send the `answers` to the workers."""
        if self.center.num_commits > version:
            told = [answer.staleness for _, answer in answers if isinstance(answer, Exchanged)]
            samples = sum(self._workers[worker].samples for worker, _ in answers)
            committer = DRIVER if self.center.algorithm.synchronous else sender
            if self.recorder.add(self.clock.now, samples, committer, max(told)):
                self.recorder.evaluate(self.center.snapshot())
        for worker, answer in answers:
            self._receive(worker, answer)

    def _receive(self, worker: int, answer: Reply) -> None:
        if isinstance(answer, Refused):
            self.diverged = True
            return
        if isinstance(answer, Rejoin):  # The server has restarted and does not know it: its window is lost.
            before = self._workers[worker]
            self._workers[worker] = self._start(worker, before.attempt)
            self._workers[worker].replica = before.replica  # The process is still alive.
            self._begin_window(worker, self.clock.now + 2 * self._transit.whole)
            return
        if not isinstance(answer, Exchanged):
            raise TypeError(f"Expected Exchanged. Received: {answer!r}")
        lost = self.failures.lost_reply
        if lost and self.faults.random() < lost:
            self._transit.push(
                self.clock.now + self.failures.timeout + self._transfer_of(worker), worker, Arrival.DUPLICATE
            )
            return
        if self.schedule.is_cut(worker, self.clock.now):
            self._transit.push(
                self.clock.now + self.outages.cut_restart + self._transfer_of(worker),
                worker,
                Arrival.DUPLICATE,
            )
            return
        self.recorder.bytes_received += answer.reply.nbytes
        state = self._workers[worker]
        start = state.local
        self._exchanges.take_up(state, answer)
        received = self.clock.now + self._transfer_of(worker)
        state.weights = start if self.config.overlap is True and start is not None else state.adopted
        if self.config.overlap:
            self._begin_window(worker, state.sent_at, received)
            state.next_window = self._length(answer)  # The next one began before this answer.
        else:
            state.next_window = self._length(answer)
            self._begin_window(worker, received)
        state.local = state.message = state.sent = None

    def _drop_events(self) -> None:
        """Read the center's events, so that it drops them."""
        more, on_event = True, self.on_event
        while more:
            [(_, polled)] = self.handle(Poll(self._seen))
            if not isinstance(polled, Polled):
                raise TypeError(f"Expected Polled. Received: {polled!r}")
            self._seen, more = polled.next, False
            if on_event is not None:
                more = bool(polled.events)
                for event in polled.events:
                    on_event(event)
