"""Held trainings under random kills: the driver decides at every boundary, about the rows of an epoch."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from distkeras.algorithms import AEASGD, DOWNPOUR, DiLoCo, LocalSGD
from distkeras.center import Center, CenterConfig, restore_snapshot, take_snapshot
from distkeras.center.answers import Done, Exchanged, Joined, Pulled, Rejoin
from distkeras.center.orders import Orders
from distkeras.center.requests import DRIVER, Exchange, Fetch, Join, Keep, Leave, Order, Pull, Report
from distkeras.center.snapshot import read
from distkeras.events import CenterKept, EpochEnded, ServerRestored

WINDOWS, EPOCHS, ROWS = 3, 3, 4
"""Windows of a worker in an epoch, epochs, rows of a window."""


class Worker:
    """A worker that trains, waits for its answer, and asks again or is replaced at any time."""

    def __init__(self, world, index):
        self.world, self.index, self.attempt = world, index, 0
        self.request = Join(index)
        self.sent = self.left = False
        self.evaluated = None

    def step(self):
        """Send what comes next, or send it again."""
        request = self.request
        if isinstance(request, Exchange):
            tag = request.sequence
            self.world.send(Report(self.index, "state", tag, 0, 1, b"%d" % tag))
            request = self._window(tag)  # The center has overwritten the message.
        self.sent = True
        self.world.send(request)

    def die(self):
        self.attempt += 1
        self.request, self.sent, self.evaluated = Join(self.index, self.attempt), False, None

    def take(self, reply):
        if isinstance(reply, Rejoin):
            self.request, self.sent = Join(self.index, self.attempt), False
            return
        self.sent = False
        if isinstance(reply, Joined) and reply.sequence:  # Its state is that after its last commit.
            ((_, state),) = self.world.center.handle(Fetch(self.index, "state", reply.sequence))
            assert state.data == b"%d" % reply.sequence
        if isinstance(reply, Joined):  # A restarted server may have lost what it had reported.
            self.evaluated = None
        if isinstance(reply, Joined | Exchanged):
            self.sequence = reply.sequence
            orders = reply.orders
            if orders is not None and orders.evaluate not in (None, self.evaluated):
                self.evaluated = orders.evaluate
                self.request = Report(self.index, "evaluation", orders.evaluate, 0, 1, b"result")
                return
        self.left = isinstance(self.request, Leave) and reply == Done()
        last = self.sequence == WINDOWS * EPOCHS
        self.request = Leave(self.index) if last else self._window(self.sequence + 1)

    def _window(self, sequence):
        states = np.array([1.0, sequence], "<f8").tobytes()
        message = np.ones(2, np.float32)
        return Exchange(self.index, sequence, 2, ROWS, 0, 2 * sequence, message, {}, states=states)


class World:
    """A center, its workers, and a driver that decides at every boundary."""

    def __init__(self, algorithm, num_workers, seed):
        self.random = random.Random(seed)
        self.epoch = num_workers * WINDOWS * ROWS
        self.config = CenterConfig(algorithm, num_workers, epoch_rows=self.epoch, until=self.epoch)
        self.center = self.start()
        self.workers = [Worker(self, index) for index in range(num_workers)]
        self.snapshot, self.since, self.decided = self.saved(), 0, []
        self.orders, self.ended, self.reported = Orders(), None, False

    def start(self):
        return Center(self.config, np.zeros(2, np.float32), clock=lambda: 7.0)

    def saved(self):
        file = io.BytesIO()
        take_snapshot(self.center, {}).write(file)
        return file.getvalue()

    def send(self, request):
        for worker, reply in self.center.handle(request):
            if worker != DRIVER and not (isinstance(request, Report) and request.kind == "state"):
                self.workers[worker].take(reply)

    def restart(self):
        self.center = self.start()
        restore_snapshot(self.center, read(io.BytesIO(self.snapshot)), self.since)
        self.ended = None
        for worker in self.workers:
            worker.sent = False  # It asks again, and is told to join.
            if worker.left and not self.center._records.of(worker.index).left:
                raise AssertionError("A worker has left without a snapshot.")
        if self.orders != Orders():
            self.send(Order(self.orders))
            self.send(Keep(self.orders.evaluate))

    def drive(self):
        """Read the events, and take the next of the steps to a decision."""
        polled = self.center.event_log.read(self.since)
        self.since = polled.next
        for event in polled.events:
            if isinstance(event, ServerRestored):
                self.ended = None
            if isinstance(event, EpochEnded) and event.epoch == len(self.decided) and event.whole:
                self.ended = event
            assert not isinstance(event, CenterKept) or event.samples % self.epoch == 0
        ended = self.ended
        if ended is None:
            return
        end = self.config.epoch_end(ended.epoch)
        assert self.center._decisions.samples == ended.samples == end  # Nobody trains past the boundary.
        if self.orders.evaluate != end:
            self.order(evaluate=end)
            self.send(Keep(end))
            return
        found = [
            self.center.handle(Fetch(worker.index, "evaluation", end))[0][1].parts for worker in self.workers
        ]
        last = ended.epoch == EPOCHS - 1
        if all(found):
            ((_, kept),) = self.center.handle(Pull(kept=end))
            if not isinstance(kept, Pulled):  # A worker has still to come back after its server.
                return
            assert kept.center.tobytes() == self.center.snapshot().tobytes()
            sums = np.frombuffer(ended.states, "<f8").tolist()
            self.decided.append((ended.windows, *sums, self.center.snapshot().tolist()))
            self.ended = None
            self.order(until=end + (10**6 if last else self.epoch))

    def order(self, **changes):
        self.orders = self.orders._replace(**changes)
        self.send(Order(self.orders))

    def act(self):
        """Do one thing at random."""
        chance = self.random.random()
        worker = self.random.choice(self.workers)
        if worker.left and chance < 0.85:
            return self.drive()
        if chance < 0.6:
            return None if worker.sent else worker.step()
        if chance < 0.8:
            return self.drive()
        if chance < 0.85:
            self.snapshot = self.saved()
        elif chance < 0.9:
            return None if worker.left else worker.die()
        elif chance < 0.94:
            return self.restart()
        elif worker.sent and not worker.left:
            return worker.step()  # Its connection was cut.
        return None


@pytest.mark.parametrize(
    ("algorithm", "num_workers"),
    [(DOWNPOUR(), 1), (AEASGD(learning_rate=0.1, rho=1.0), 1), (LocalSGD(), 2), (DiLoCo(), 3)],
    ids=lambda value: getattr(value, "name", value),
)
def test_decisions_are_those_of_an_undisturbed_training_whatever_is_killed(algorithm, num_workers):
    sums = [
        num_workers * sum(range(1 + WINDOWS * epoch, 1 + WINDOWS * (epoch + 1))) for epoch in range(EPOCHS)
    ]
    found = set()
    for seed in range(60 // num_workers**2):
        world = World(algorithm, num_workers, seed)
        for _ in range(4000):
            if len(world.decided) == EPOCHS and all(worker.left for worker in world.workers):
                break
            left = [worker.left for worker in world.workers]
            world.act()
            if [worker.left for worker in world.workers] != left:
                world.snapshot = world.saved()  # As the server does before a worker may leave.
        assert len(world.decided) == EPOCHS
        assert all(worker.left for worker in world.workers)
        assert [each[:3] for each in world.decided] == [
            (num_workers * WINDOWS, float(num_workers * WINDOWS), float(total)) for total in sums
        ]
        found.add(tuple(tuple(each[3]) for each in world.decided))
    assert len(found) == 1  # The same center at every boundary, too.
