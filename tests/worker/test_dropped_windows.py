"""A worker whose window has become too stale drops it, and trains its rows again from the center."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from test_loop import CountingReplica, ListFeed, make_center, windows_of

from distkeras.algorithms import Ringmaster
from distkeras.center import Layout
from distkeras.center.orders import Orders
from distkeras.center.requests import Beat, Exchange, Join, Order
from distkeras.simulation import Quadratic, Replica, simulate
from distkeras.worker.loop import Loop


class Forgetful(CountingReplica):
    """Calls `between` after each minibatch, with the number trained so far."""

    forgotten = 0

    def train(self, x, y=None, sample_weight=None):
        super().train(x, y, sample_weight)
        self.between(len(self.trained))

    def forget(self):
        self.forgotten += 1


class Job:
    """Worker 0 in a loop, told at once of what a heartbeat would tell, and worker 1, which commits at call.

    Args:
        rule: the algorithm.
        rows: minibatches in an epoch of worker 0.
        between: the number of commits of worker 1 after so many minibatches of worker 0.
        replica: that of worker 0.
        train: returns what worker 1 has after a window from the given weights.
    """

    def __init__(self, rule, rows, num_epoch, between, replica=None, train=None):
        self.replica = replica or Forgetful()
        self.replica.between = lambda count: self.commit(between.get(count, 0))
        self.train = train or (lambda weights: weights + np.array([100, *0 * weights[1:]], np.float32))
        layout = self.replica.layout
        self.center = make_center(rule, 2, layout.size, layout.num_trainable)
        self.center.shards[0].write(self.replica.weights)
        self.places, self.sent, self.centers, self.numbers = [], [], [], itertools.count(1)
        self.anchor = self.ask(Join(1)).center
        self.loop = Loop(
            self.replica,
            ListFeed(rows),
            rule,
            self.ask,
            worker=0,
            num_epoch=num_epoch,
            dropped=lambda: self.ask(Beat(0)).drop,
        )

    def ask(self, request):
        if isinstance(request, Exchange) and request.worker == 0:
            self.sent.append(request.window)
            self.places.append((request.epoch, request.step))
        ((_, reply),) = self.center.handle(request)
        if isinstance(request, Exchange):
            self.centers.append(self.center.snapshot())
        return reply

    def commit(self, times):
        for _ in range(times):
            message = self.train(self.anchor) - self.anchor
            self.anchor = self.ask(Exchange(1, next(self.numbers), 1, 1, 0, 0, message)).reply.copy()


RULE = Ringmaster(4, delay_threshold=2, stop=True)


def test_a_dropped_window_is_trained_again_from_the_center_and_its_rows_count_once():
    job = Job(RULE, rows=6, num_epoch=1, between={2: 2})
    job.loop.run()
    assert job.replica.trained == [0, 1, 0, 1, 2, 3, 4, 5]
    assert job.places == [(0, 0), (0, 4), (1, 0)]
    assert job.sent == [(0, 0), (4, 128), (2, 39)]
    assert job.replica.forgotten == 1
    assert job.center.snapshot().tolist() == [206.0]
    mine = [each for each in windows_of(job.center) if each.worker == 0]
    assert [(each.verdict, each.staleness) for each in mine] == [("discard", 2), ("take", 0), ("take", 0)]


def test_a_window_may_be_dropped_more_than_once_and_across_the_end_of_an_epoch():
    """The window from 4 to 7 is dropped after three minibatches, and again after two."""
    job = Job(RULE, rows=6, num_epoch=2, between={7: 2, 9: 2})
    job.loop.run()
    assert job.replica.trained == [0, 1, 2, 3, 4, 5, 6, 4, 5, 4, 5, 6, 7, 8, 9, 10, 11]
    assert job.places == [(0, 4), (0, 4), (0, 4), (1, 2), (1, 6)]
    assert sum(samples for _, samples in job.sent) == 2 * (5 * 32 + 7)
    assert job.center.snapshot().tolist() == [412.0]


def test_statistics_of_a_dropped_window_do_not_reach_the_center():
    """The worker has summed up 0 + 1 + 2 + 3; of two workers, the center takes half of it."""
    layout = Layout((("w", (1,)),), (("mean", (1,)),))
    job = Job(RULE, 4, 1, {3: 2}, Forgetful(layout))
    job.loop.run()
    assert job.replica.trained == [0, 1, 2, 0, 1, 2, 3]
    assert job.center.snapshot().tolist() == [204.0, 3.0]


def test_a_worker_that_is_ordered_to_stop_while_it_drops_its_window_leaves_at_its_begin():
    job = Job(RULE, rows=8, num_epoch=1, between={6: 2})
    commit = job.commit

    def and_order(times):
        commit(times)
        if times:
            job.center.handle(Order(Orders(stop=True)))

    job.commit = and_order
    job.loop.run()
    assert job.replica.trained == [0, 1, 2, 3, 4, 5]
    assert job.places == [(0, 4), (0, 4)]


def test_a_rule_that_does_not_stop_is_asked_nothing():
    job = Job(Ringmaster(4, delay_threshold=2), rows=4, num_epoch=1, between={2: 2})
    job.loop.run()
    assert job.replica.trained == [0, 1, 2, 3]
    assert job.center.handle(Beat(0))[0][1].drop == -1


@dataclass(frozen=True)
class Turns:
    """Worker 0 needs these seconds for its windows in turn, worker 1 needs 1 second for each."""

    seconds: tuple[float, ...]

    def windows(self, num_workers, rng):
        turns = itertools.cycle(self.seconds)
        return lambda worker, num_steps: 1.0 if worker else next(turns)


class Descending(Forgetful):
    """Descends a quadratic."""

    def __init__(self, problem):
        super().__init__(Layout((("w", (problem.initial.size,)),)))
        self.weights = problem.initial
        self.problem, self.own = problem, Replica(0, 2, 0.1, 0.0, (0,))

    def train(self, x, y=None, sample_weight=None):
        self.weights, _ = self.problem.train(self.weights, 1, self.own)
        self.trained.append(x)
        self.between(len(self.trained))


# With `stop`, worker 0 is dropped at 3 s and at 7.4 s; the other commits every second.
BETWEEN = {True: {1: 3, 3: 1, 4: 3, 6: 1, 7: 3}, False: {1: 9, 3: 2}}


@pytest.mark.parametrize("stop", [True, False])
def test_the_loop_moves_the_center_as_in_the_simulator(stop):
    """Worker 0 has windows of 10 s, which it drops after 3 commits of the other, and of 1.4 s in turn."""
    rule, problem = Ringmaster(2, delay_threshold=3, stop=stop), Quadratic((0.5, 1.0))
    options = {"num_workers": 2, "num_commits": 12, "learning_rate": 0.1}
    simulated = simulate(rule, problem, step_time=Turns((10.0, 1.4)), **options)

    other = Replica(1, 2, 0.1, 0.0, (0,))
    job = Job(rule, 6, 1, BETWEEN[stop], Descending(problem), lambda start: problem.train(start, 2, other)[0])
    job.loop.run()
    assert np.array(job.centers[:12]).tobytes() == simulated.centers[1:].tobytes()
    assert (job.replica.forgotten > 1) == stop
