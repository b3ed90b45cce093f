"""The event loop of a simulation: messages arrive by their times, and the center handles them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from distkeras.center import Center, CenterConfig, Fragmented
from distkeras.center.answers import Answer, Done, Exchanged, Refused, Rejoin, Reply
from distkeras.center.requests import DRIVER, Leave
from distkeras.simulation.accidents import Accidents
from distkeras.simulation.conditions import Length
from distkeras.simulation.exchanges import Exchanges
from distkeras.simulation.joins import Joins
from distkeras.simulation.links import Links
from distkeras.simulation.outages import Moment
from distkeras.simulation.problem import Problem
from distkeras.simulation.recorder import Recorder
from distkeras.simulation.result import Result
from distkeras.simulation.server import Server
from distkeras.simulation.server_queue import ServerQueue
from distkeras.simulation.shares import Shares
from distkeras.simulation.state import Arrival, Inner, VirtualClock, Worker
from distkeras.simulation.transit import Transit

POLL_EVERY = 1024
"""Commits between two reads of the center's event log, which would otherwise grow with the run."""


@dataclass
class Simulation:
    """Runs the workers of one job in the order in which their messages arrive.

    A window is trained when its commit arrives, or before, from the weights stored for its worker: nothing
    can change them in between.

    Attributes:
        server: the process of the server.
        config: settings of the center.
        links: the workers' connections.
        queue: the server's queue.
        shares: what the workers train.
        accidents: what befalls workers.
        diverged: whether the center has refused a message.
    """

    server: Server
    clock: VirtualClock
    problem: Problem
    inner: Inner
    accidents: Accidents
    links: Links
    queue: ServerQueue
    shares: Shares
    recorder: Recorder
    config: CenterConfig
    diverged: bool = False

    def __post_init__(self) -> None:
        self.outages, self.schedule = self.accidents.outages, self.accidents.schedule
        self._workers: dict[int, Worker] = {}
        self._active: set[int] = set()  # Workers that have not left.
        self._idle: list[int] = []  # Machines of an elastic training without a share.
        self._transit = Transit()
        # A restarted server may not know a message that had arrived.
        self._exchanges = Exchanges(self.problem, self.config, safe=math.isinf(self.outages.server))
        self._joins = Joins(self.server, self.links, self.inner, self.config.num_fragments)
        self._stops = self.config.algorithm.stops
        self._has_grace, self._overlap = self.config.quorum is not None, self.config.overlap
        self._version = 0  # Commits of the center that are recorded.
        self._accounts = False  # Whether anybody reads where the workers' time goes.

    def commits(self, length: Length, num_machines: int) -> Iterator[None]:
        """Run, and yield after each commit, until the run ends or the center refuses a commit.

        Args:
            length: when the run ends. Repeated commits count once.
            num_machines: number of machines, one for each worker unless the training is elastic.
        """
        self.server.mute()
        self._accounts = self.server.on_event is not None
        self.recorder.evaluate(self.center.snapshot())
        for machine in range(num_machines):
            self._take_share(machine, 0.0)
        for moment in Moment:
            self._expect(moment, 0.0)
        most, rows, until = length.num_commits or math.inf, length.num_samples or math.inf, length.until
        recorder = self.recorder
        while self._version < most and recorder.num_samples < rows and self._active and not self.diverged:
            before = self._version
            if not self._step(until):
                self._evaluate_before(math.nextafter(until, math.inf))
                break
            if self._version > before:
                if self._version % POLL_EVERY == 0:
                    self.server.read_events()
                yield
        self.recorder.evaluate(self.center.snapshot())

    def _step(self, until: float) -> bool:
        """Handle what happens next, and return `True`; `False` if it happens after `until`."""
        if self._has_grace and (due := self._grace_before_next()) is not None:
            if due > until:
                return False
            self._evaluate_before(due)
            self.clock.now = due
            self._take(DRIVER, self.server.look())
            return True
        time, _, worker, arrival = self._transit.pop()
        if isinstance(arrival, Moment):
            if time > until:
                return False
            self._evaluate_before(time)
            self._happen(arrival, time)
            return True
        num_bytes = self._bytes_of(worker, arrival) if self.queue.by_bytes else 0
        done = self.queue.done(time, num_bytes)
        if done > until:
            return False
        self.queue.take(time, num_bytes, done)
        if self.recorder.next_look < done:
            self._evaluate_before(done)
        self.clock.now = done
        self._arrive(worker, arrival)
        return True

    def _evaluate_before(self, time: float) -> None:
        """Evaluate the center at the even times before `time`."""
        while self.recorder.next_look < time:
            self.recorder.look(self.center.snapshot)

    def _bytes_of(self, worker: int, arrival: Arrival) -> int:
        """Return the bytes for which the server handles a message that arrives."""
        if arrival is Arrival.COMMIT or arrival is Arrival.DROP:
            return self.links.commit_bytes(worker, self._workers[worker].sequence + 1)
        if arrival is Arrival.DUPLICATE:
            return self.links.commit_bytes(worker, self._workers[worker].sequence)
        return self.links.join_bytes if arrival is Arrival.LEAVE else self.links.joined_bytes

    @property
    def center(self) -> Center | Fragmented:
        """The center of the server's present process."""
        return self.server.center

    def result(self) -> Result:
        """Return the trajectory so far."""
        center = self.center
        return self.recorder.result(center.algorithm, center.num_workers, self.diverged, self.queue)

    def _grace_before_next(self) -> float | None:
        """Return when the grace of the open round is over, if that is before the next message is handled."""
        due = self.center.due
        if due is None or (first := self._transit.next()) is None:
            return due
        time, worker, arrival = first
        if not isinstance(arrival, Moment):
            time = self.queue.done(time, self._bytes_of(worker, arrival))
        return due if due <= time else None

    def _expect(self, moment: Moment, now: float) -> None:
        self._transit.push(self.schedule.next(moment, now), DRIVER, moment)

    def _happen(self, moment: Moment, time: float) -> None:
        """Handle an event of the whole job."""
        match moment:
            case Moment.SNAPSHOT:
                self.server.take_snapshot()
            case Moment.SERVER_FAILS:
                self._restore(time + self.outages.server_restart)
            case Moment.JOB_FAILS:
                self._stop(time + self.outages.job_restart)
            case Moment.WORKERS_FAIL:
                self._stop(time + self.outages.worker_restart)
        self._expect(moment, time)

    def _restore(self, up: float) -> None:
        """Restart the server at `up` from its last snapshot; workers that wait for it send again."""
        self.server.restart()
        self._version = self.center.num_commits
        self.recorder.roll_back(self._version, self.center.snapshot())
        self._joins.forget()
        self.queue.free = max(self.queue.free, up)
        under_way = self._transit.workers()
        for worker in sorted(self._active):
            if worker not in under_way:  # Its message was in an open round, which is lost.
                self._send_again(worker, up)

    def _stop(self, up: float) -> None:
        """Stop all workers; they join again at `up`."""
        self._transit.drop_messages()
        self._exchanges.drop()
        for worker in sorted(self._active):
            self._send_word(worker, up)
        self.recorder.num_stopped += 1

    def _begin_window(self, worker: int, now: float, reply: float | None = None) -> None:
        """Schedule the arrival of the worker's next window, or of its replacement after a failure.

        Args:
            worker: index of the worker.
            now: start of the window.
            reply: arrival of the reply to the previous window, which the worker needs to send this one.
        """
        state, machine = self._workers[worker], worker
        state.window = self._exchanges.next_steps(state)
        if not self.shares.endless and (left := self.shares.left(worker, state.step)) is not None:
            machine = self.shares.machine(worker)
            state.window = min(state.window, left)
            if left <= 0:
                self._send_word(worker, now, Arrival.LEAVE)
                return
        seconds, failed = self.accidents.window(machine, now, state.window)
        if failed is not None:
            self._send_word(worker, failed)
            return
        # The steps that the worker trains without the reply, and then those for which it needs it.
        early = seconds * state.trained / state.window if self._exchanges.late else seconds
        needs_it = now + early
        if reply is not None:
            state.account.wait(reply - needs_it)
            needs_it = max(needs_it, reply)
        state.sent_at, state.seconds = needs_it + (seconds - early), seconds
        links = self.links
        arrives = state.sent_at + links.seconds(links.commit_bytes(worker, state.sequence + 1))
        self._transit.push(arrives, worker, Arrival.COMMIT)
        self._exchanges.begin(worker, state)

    def _arrive(self, worker: int, arrival: Arrival) -> None:
        if arrival is Arrival.COMMIT or arrival is Arrival.DROP:
            state = self._workers[worker]
            if arrival is Arrival.COMMIT:
                self._exchanges.train(worker, state)
            else:
                self._exchanges.give_up(worker, state)
            if state.sent is not None and self._accounts:
                state.sent.timing = state.account.close(state.seconds)
        elif arrival is Arrival.DUPLICATE:
            state = self._workers[worker]
            self.recorder.num_duplicates += 1
            state.account.resends += 1
        elif arrival is Arrival.LEAVE:
            self._leave(worker)
            return
        else:
            self._join(worker, replaces=arrival is Arrival.JOIN)
            return
        if state.sent is None:
            raise RuntimeError(f"Worker {worker} has nothing to send.")
        request, num_bytes = self.links.send(state.sent)
        if request is not state.sent:
            state.message = state.sent.message  # What the center decodes.
        self.recorder.bytes_sent += num_bytes
        if self._accounts:
            state.account.bytes_out += num_bytes
            state.account.handled = self.clock.now
        self._take(worker, self.server.handle(request))

    def _join(self, worker: int, replaces: bool) -> None:
        """Let a process train as a worker: it replaces one that has failed, or takes a share of the queue."""
        self.recorder.bytes_sent += self.links.join_bytes
        self.recorder.bytes_received += self.links.joined_bytes
        if replaces:
            self.recorder.num_crashes += 1
            self.schedule.started(self.shares.machine(worker), self.clock.now)
        self._workers[worker] = self._joins.start(worker, self._attempts(worker))
        self._begin_window(worker, self.clock.now + self.links.seconds(self.links.joined_bytes))

    def _leave(self, worker: int) -> None:
        """Let a worker go whose share has run out; its machine may take the next one."""
        answers = self.server.handle(Leave(worker, rests=self.shares.rests(worker)))
        if not any(isinstance(answer, Rejoin) for to, answer in answers if to == worker):
            self._active.discard(worker)
            if math.isfinite(self.outages.server):  # A server confirms it only after a snapshot.
                self.server.take_snapshot()
            self._idle.append(self.shares.give_back(worker))
        self._take(worker, answers)
        idle, self._idle = self._idle, []
        for machine in idle:
            self._take_share(machine, self.clock.now + self.links.seconds(self.links.join_bytes))

    def _take_share(self, machine: int, now: float) -> None:
        """Let a machine without a share train the next one."""
        worker = self.shares.take(machine)
        if worker is None:
            self._idle.append(machine)
            return
        self._active.add(worker)
        if now == 0.0:  # All are there when the run begins.
            self._workers[worker] = self._joins.start(worker)
            self._begin_window(worker, now)
        else:
            self._send_word(worker, now, Arrival.TAKE)

    def _attempts(self, worker: int) -> int:
        """Return how many processes have trained as a worker."""
        before = self._workers.get(worker)
        return 0 if before is None else before.attempt + 1

    def _send_word(self, worker: int, now: float, arrival: Arrival = Arrival.JOIN) -> None:
        """Send a message without a vector."""
        self._transit.push(now + self.links.seconds(self.links.join_bytes), worker, arrival)

    def _send_again(self, worker: int, now: float) -> None:
        """Send a worker's last commit once more, over a new connection."""
        self.links.connect(worker, again=True)
        num_bytes = self.links.commit_bytes(worker, self._workers[worker].sequence)
        self._transit.push(now + self.links.seconds(num_bytes), worker, Arrival.DUPLICATE)

    def _take(self, sender: int, answers: list[Answer]) -> None:
        """Record a commit, if there is one more, and send the `answers` to the workers."""
        center = self.server.center
        if (version := center.num_commits) > self._version:
            self._version = version
            samples = staleness = 0
            for worker, answer in answers:
                samples += self._workers[worker].samples
                if isinstance(answer, Exchanged) and answer.staleness > staleness:
                    staleness = answer.staleness
            committer = DRIVER if center.algorithm.synchronous else sender
            if self.recorder.add(self.clock.now, samples, committer, staleness):
                self.recorder.evaluate(center.snapshot())
        for worker, answer in answers:
            self._receive(worker, answer)
        if self._stops and isinstance(center, Center):
            for worker in center.stale():
                self._stop_window(worker)

    def _stop_window(self, worker: int) -> None:
        """Send a worker the word to drop its window, unless it ends or fails before that."""
        state = self._workers[worker]
        told = self.clock.now + self.links.seconds(self.links.join_bytes)
        if told < state.sent_at and self._transit.take_back(worker):
            self.recorder.bytes_received += self.links.join_bytes
            state.seconds -= state.sent_at - told
            state.sent_at = told
            num_bytes = self.links.commit_bytes(worker, state.sequence + 1)
            self._transit.push(told + self.links.seconds(num_bytes), worker, Arrival.DROP)

    def _receive(self, worker: int, answer: Reply) -> None:
        if not isinstance(answer, Exchanged):
            self._receive_other(worker, answer)
            return
        if not self.accidents.calm:
            again = self.accidents.lost_reply(self.shares.machine(worker), self.clock.now)
            if again is not None:
                self._send_again(worker, again)
                return
        answer, num_bytes = self.links.receive(worker, answer)
        self.recorder.bytes_received += num_bytes
        state, now = self._workers[worker], self.clock.now
        start = state.local
        self._exchanges.take_up(worker, state, answer)
        received = now + self.links.seconds(num_bytes)
        if self._accounts:
            state.account.answered(num_bytes, now, received - state.sent_at)
        if self._overlap:
            state.weights = start if self._overlap is True and start is not None else state.adopted
            self._begin_window(worker, state.sent_at, received)
            state.next_window = self._joins.next_window(answer)  # The next one began before this answer.
        else:
            state.weights, state.next_window = state.adopted, self._joins.next_window(answer)
            self._begin_window(worker, received)
        state.local = state.message = state.sent = None

    def _receive_other(self, worker: int, answer: Reply) -> None:
        """Receive an answer to a commit that was not applied, or to a worker that has left."""
        if isinstance(answer, Refused):
            self.diverged = True
        elif isinstance(answer, Rejoin):  # The server has restarted and does not know it: its window is lost.
            before = self._workers[worker]
            self._workers[worker] = self._joins.start(worker, before.attempt, again=True)
            self._workers[worker].replica = before.replica  # The process is still alive.
            self._begin_window(worker, self.clock.now + 2 * self.links.seconds(self.links.joined_bytes))
        elif not isinstance(answer, Done):
            raise TypeError(f"Expected Exchanged. Received: {answer!r}")
