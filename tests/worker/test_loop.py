"""The loop against a real center: windows, partial windows, resuming, divergence."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from distkeras.algorithms import ADAG, AEASGD, DOWNPOUR, Algorithm, Sequential
from distkeras.center import BadUpdates, Center, CenterConfig, Layout
from distkeras.center.requests import Exchange
from distkeras.events import Window, WorkerLeft
from distkeras.worker.loop import Loop, TrainingDiverged
from distkeras.worker.minibatch import Minibatch


class CountingReplica:
    """Adds one to its weight a step, and the minibatch's number to its statistic."""

    def __init__(self, layout=None, loss=0.5):
        self.layout = layout or Layout((("w", (1,)),))
        self.weights = np.zeros(self.layout.size, np.float32)
        self.trained = []
        self.writes = 0
        self.loss = loss

    def train(self, x, y=None, sample_weight=None):
        self.weights[: self.layout.num_trainable] += 1
        self.weights[self.layout.num_trainable :] += x
        self.trained.append(x)

    def read(self):
        return self.weights.copy()

    def write(self, vector):
        self.writes += 1
        self.weights = vector.copy()

    adopt = write

    def metrics(self):
        return {"loss": self.loss}

    def collect_metrics(self, before=()):
        pass


class ListFeed:
    """`rows` minibatches an epoch, numbered through all epochs."""

    def __init__(self, rows):
        self.rows = rows

    def epoch(self, epoch, start=0):
        for step in range(start, self.rows):
            yield Minibatch(epoch * self.rows + step, None, None, 32 if step < self.rows - 1 else 7)


def make_center(algorithm, num_workers=1, size=1, num_trainable=None, **options):
    config = CenterConfig(algorithm, num_workers, num_trainable=num_trainable, **options)
    return Center(config, np.zeros(size, np.float32), clock=itertools.count().__next__)


def caller(center):
    def call(request):
        ((_, reply),) = center.handle(request)
        return reply

    return call


def windows_of(center):
    return [event for event in center.event_log.read(0).events if isinstance(event, Window)]


def run(algorithm, rows, num_epoch, replica=None, center=None, attempt=0, call=None, overlap=False):
    replica = replica or CountingReplica()
    center = center or make_center(algorithm)
    call = call or caller(center)
    loop = Loop(replica, ListFeed(rows), algorithm, call, worker=0, num_epoch=num_epoch, overlap=overlap)
    loop.run(attempt)
    return replica, center


@pytest.mark.parametrize("overlap", [False, True])
def test_every_minibatch_is_trained_once_and_every_window_committed(overlap):
    replica, center = run(DOWNPOUR(communication_window=4), rows=10, num_epoch=3, overlap=overlap)
    assert replica.trained == list(range(30))
    assert center.snapshot().tolist() == [30.0]
    assert [window.steps for window in windows_of(center)] == [4] * 7 + [2]


def test_the_first_window_has_the_whole_length():
    _, center = run(DOWNPOUR(communication_window=5), rows=10, num_epoch=1)
    assert [window.steps for window in windows_of(center)] == [5, 5]


def test_windows_run_on_across_epochs():
    _, center = run(DOWNPOUR(communication_window=7), rows=5, num_epoch=2)
    assert [(window.steps, window.epoch) for window in windows_of(center)] == [(7, 1), (3, 1)]
    assert [window.samples for window in windows_of(center)] == [4 * 32 + 7 + 2 * 32, 2 * 32 + 7]


def test_a_window_of_none_is_one_epoch():
    _, center = run(DOWNPOUR(communication_window=None), rows=5, num_epoch=3)
    assert [(window.steps, window.epoch) for window in windows_of(center)] == [(5, 0), (5, 1), (5, 2)]


def test_the_last_event_of_a_worker_is_that_it_left():
    _, center = run(DOWNPOUR(), rows=3, num_epoch=1)
    assert isinstance(center.event_log.read(0).events[-1], WorkerLeft)


class Killed(Exception):
    pass


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("commits", range(8))
def test_retried_worker_resumes_at_its_last_committed_window(commits, overlap):
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm)
    left = itertools.count()

    def call(request):
        if isinstance(request, Exchange) and next(left) == commits:
            raise Killed
        return caller(center)(request)

    with pytest.raises(Killed):
        run(algorithm, 10, 3, center=center, call=call, overlap=overlap)
    replica, _ = run(algorithm, 10, 3, center=center, attempt=1, overlap=overlap)
    assert replica.trained == list(range(4 * commits, 30))
    assert center.snapshot().tolist() == [30.0]
    assert [window.iteration for window in windows_of(center)] == list(range(8))


def test_a_commit_that_was_applied_before_the_worker_died_is_not_trained_again():
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm)

    def call(request):
        reply = caller(center)(request)
        if isinstance(request, Exchange) and request.sequence == 3:
            raise Killed
        return reply

    with pytest.raises(Killed):
        run(algorithm, 10, 3, center=center, call=call)
    replica, _ = run(algorithm, 10, 3, center=center, attempt=1)
    assert replica.trained == list(range(12, 30))
    assert center.snapshot().tolist() == [30.0]


def test_a_lost_reply_of_an_elastic_rule_starts_the_worker_anew_from_the_center():
    algorithm = AEASGD(communication_window=4)
    center = make_center(algorithm)
    replica = CountingReplica()

    def call(request):
        reply = caller(center)(request)
        if isinstance(request, Exchange) and request.sequence == 2:
            # The reply was lost with its connection: the client resends.
            request.message[:] = 99
            reply = caller(center)(request)
            assert reply.restart
            assert reply.reply.tolist() == center.snapshot().tolist()
        return reply

    run(algorithm, 8, 1, replica=replica, center=center, call=call)
    assert replica.weights.tolist() == center.snapshot().tolist()


def test_a_loss_that_is_no_number_is_an_error_and_is_not_committed():
    center = make_center(DOWNPOUR(communication_window=4))
    with pytest.raises(TrainingDiverged, match=r"window 0: the loss became nan.*learning"):
        run(DOWNPOUR(communication_window=4), 10, 1, replica=CountingReplica(loss=np.nan), center=center)
    assert center.num_updates == 0


@pytest.mark.parametrize("overlap", [False, True])
def test_weights_that_are_no_numbers_are_refused_by_the_center(overlap):
    replica = CountingReplica()
    replica.train = lambda *_: replica.weights.fill(np.inf)
    center = make_center(DOWNPOUR(communication_window=4))
    with pytest.raises(TrainingDiverged, match="refused the update in worker 0, epoch 0, window 0"):
        run(DOWNPOUR(communication_window=4), 10, 1, replica=replica, center=center, overlap=overlap)
    assert center.snapshot().tolist() == [0.0]


def test_adag_divides_a_partial_window_by_the_steps_really_taken():
    _, center = run(ADAG(communication_window=4), rows=6, num_epoch=1)
    assert center.snapshot().tolist() == [2.0]  # 4/4 + 2/2


def test_statistics_are_averaged_over_workers_and_handed_back():
    layout = Layout((("w", (1,)),), (("mean", (1,)),))
    algorithm = DOWNPOUR(communication_window=1)
    center = make_center(algorithm, num_workers=2, size=2, num_trainable=1)
    replica = CountingReplica(layout)
    run(algorithm, 2, 1, replica=replica, center=center)
    # c = 0 + (0 - 0)/2, then 0 + (0 + 1 - 0)/2; the worker goes on from the center's.
    assert center.snapshot().tolist() == [2.0, 0.5]
    assert replica.weights.tolist() == [2.0, 0.5]


def test_sequential_training_never_writes_the_weights_after_the_first_center():
    replica, center = run(Sequential(communication_window=2), rows=9, num_epoch=1)
    assert replica.writes == 1
    assert center.snapshot().tolist() == [9.0]


def test_a_worker_that_keeps_its_weights_counts_each_delta_once():
    @dataclass(frozen=True)
    class CachedReplica(Algorithm):
        def apply(self, center, message, commit, state):
            center += message
            return center

        def adopt(self, local, message, reply):
            return local

    _, center = run(CachedReplica(communication_window=1), rows=4, num_epoch=1)
    assert center.snapshot().tolist() == [4.0]


def test_a_rule_of_the_user_runs_as_it_stands():
    @dataclass(frozen=True)
    class Half(Algorithm):
        def apply(self, center, message, commit, state):
            center += message / 2
            return center

    _, center = run(Half(communication_window=2), rows=4, num_epoch=1)
    assert center.snapshot().tolist() == [2.0]


def test_with_overlap_the_next_window_trains_while_the_reply_is_on_its_way():
    algorithm = DOWNPOUR(communication_window=4)
    center, replica = make_center(algorithm), CountingReplica()
    further = threading.Event()
    train = replica.train

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 1:
            assert further.wait(30), "The next window waited for the reply."
        return caller(center)(request)

    def counted(x, *rest):
        if x == 6:  # in the middle of the second window
            further.set()
        train(x, *rest)

    replica.train = counted
    run(algorithm, 10, 1, replica=replica, center=center, call=call, overlap=True)
    assert center.snapshot().tolist() == [10.0]


def test_with_overlap_what_a_late_elastic_reply_moves_is_conserved():
    algorithm = AEASGD(communication_window=4)
    center, replica = make_center(algorithm), CountingReplica()
    loop = Loop(replica, ListFeed(10), algorithm, caller(center), worker=0, num_epoch=2, overlap=True)
    loop.run()
    # Both began at 0 and each step adds 1: the exchanges may only move it from one to the other.
    assert center.snapshot()[0] + loop._exchanges.anchor[0] == pytest.approx(20.0, abs=1e-4)


def test_with_overlap_a_reply_that_was_lost_keeps_the_progress_made_meanwhile():
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm)

    def call(request):
        reply = caller(center)(request)
        if isinstance(request, Exchange) and request.sequence == 2:
            reply = caller(center)(request)
            assert reply.restart
        return reply

    replica, _ = run(algorithm, 10, 2, center=center, call=call, overlap=True)
    assert replica.trained == list(range(20))
    assert center.snapshot().tolist() == [20.0]


def test_with_overlap_a_skipped_window_costs_no_other():
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm, bad_updates=BadUpdates("skip"))
    replica = CountingReplica()
    train = replica.train

    def breaks(x, *rest):
        train(x, *rest)
        if x == 5:
            replica.weights.fill(np.nan)

    replica.train = breaks
    run(algorithm, 10, 2, replica=replica, center=center, overlap=True)
    assert replica.trained == list(range(20))
    assert center.snapshot().tolist() == [16.0]
