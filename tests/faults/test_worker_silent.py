"""Workers that are killed, or that stand still for longer than a heartbeat may take."""

from __future__ import annotations

import itertools
import os
import signal
import time

import bare
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.center import Center, CenterConfig, restore_snapshot, take_snapshot
from distkeras.center.elastic import Elastic
from distkeras.center.requests import Beat, Exchange, Join, Leave
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.watch import Watch, WorkerError
from distkeras.events import WorkerBack, WorkerJoined, WorkerLost, WorkerPhase

SOON = ServerOptions(heartbeat=1.5)


def stand_still(job, worker, until):
    """SIGSTOP one worker's process until `until(job)`."""
    process = job.workers.processes[worker]
    os.kill(process.pid, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 30
        while not until(job):
            if time.monotonic() > deadline:
                raise TimeoutError("what the worker was stopped for did not happen")
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGCONT)


def lost(job):
    return [event.worker for event in job.events if isinstance(event, WorkerLost)]


def test_a_killed_worker_is_replaced_and_no_window_is_lost_or_doubled():
    def fault(job):
        job.wait_for_windows(5, worker=1)
        job.workers.processes[1].kill()

    job = bare.run(fault)
    bare.check(job, 120)
    joined = [e for e in job.events if isinstance(e, WorkerJoined) and e.worker == 1]
    assert [e.attempt for e in joined] == [0, 1]
    assert joined[0].about.pid != joined[1].about.pid
    phases = [e.phase for e in job.events if isinstance(e, WorkerPhase) and e.worker == 1]
    assert phases == ["starting", "compiling", "training"] * 2


def test_a_worker_that_stands_still_is_reported_and_goes_on_when_it_can():
    def fault(job):
        job.wait_for_windows(5, worker=1)
        stand_still(job, 1, until=lost)

    job = bare.run(fault, options=SOON)
    bare.check(job, 120)
    assert 1 in lost(job)  # On a machine with much other work, more may be lost for a while.
    assert 1 in [event.worker for event in job.events if isinstance(event, WorkerBack)]


def test_a_synchronous_round_goes_on_without_a_worker_that_stands_still():
    def fault(job):
        job.wait_for_windows(5, worker=1)
        stand_still(job, 1, until=lambda job: lost(job) and job.workers.processes.keys() == {1})

    rule = LocalSGD(communication_window=2)
    job = bare.run(fault, options=SOON, algorithm=rule, without_lost=True, ends_before=False)
    assert 1 in lost(job)
    assert sum(window.steps for window in job.history) == 120
    for worker in (0, 1):
        assert [w.iteration for w in job.history if w.worker == worker] == list(range(30))


def test_a_worker_that_is_slow_is_not_taken_for_lost():
    job = bare.run(num_batches=2, num_epoch=1, pause=1.5, options=SOON)
    bare.check(job, 4)
    assert lost(job) == []


def test_a_worker_that_stands_still_for_good_ends_the_job_with_an_error():
    later = [0.0]

    def fault(job):
        job.wait_for_windows(5, worker=1)
        os.kill(job.workers.processes[1].pid, signal.SIGSTOP)
        while not lost(job):
            time.sleep(0.01)
        later[0] = 1800.0

    with pytest.raises(WorkerError, match="Worker 1 sent no heartbeat"):
        bare.run(fault, options=SOON, clock=lambda: time.monotonic() + later[0])


def test_a_job_whose_workers_never_start_ends_with_an_error():
    late = itertools.chain([0.0], itertools.repeat(1801.0))
    with pytest.raises(WorkerError, match="No worker had started after 1800 s"):
        bare.run(clock=lambda: next(late))


class Scripted:
    """Stage, server and client of a watch over a center that is driven here; each look takes 10 s.

    Args:
        steps: what happens at which second.
        elastic: how many workers may train at once.
    """

    error = None
    rows = ()

    def __init__(self, steps, elastic=None):
        self.now = 0.0
        self.steps = steps
        self.config = CenterConfig(DOWNPOUR(), 2, elastic=elastic)
        self.center = self.new()

    def new(self):
        return Center(self.config, np.zeros(4, np.float32), clock=lambda: self.now)

    def wait(self, seconds):
        return self.now >= 5000

    def revive(self, since, seconds=0.0):
        return False

    def call(self, request):
        self.now += 10
        if step := self.steps.get(self.now):
            step(self)
        ((_, reply),) = self.center.handle(request)
        return reply

    def restart(self):
        snapshot = take_snapshot(self.center, {})
        self.center = self.new()
        restore_snapshot(self.center, snapshot, self.center.event_log.next)

    def watch(self):
        options = {"clock": lambda: self.now, "center": self.config}
        return Watch(self, self, self, 2, lambda event: None, **options)


def train(world):
    """Both workers join, and one of them commits a window."""
    for worker in (0, 1):
        world.center.handle(Join(worker))
    world.center.handle(Exchange(1, 1, 1, 1, 0, 1, np.ones(4, np.float32)))


@pytest.mark.parametrize(
    "sign",
    [Beat(1), Exchange(1, 2, 1, 1, 0, 1, np.ones(4, np.float32)), Join(1)],
    ids=lambda sign: type(sign).__name__,
)
def test_a_worker_that_is_heard_again_is_missed_no_more(sign):
    steps = {
        10: train,
        50: lambda world: world.center.mark_lost(1, 31.0),
        90: lambda w: w.center.handle(sign),
    }
    with pytest.raises(WorkerError, match=r"workers \[0, 1\] had not finished"):
        Scripted(steps).watch().run()


@pytest.mark.parametrize(
    ("heard", "error"), [((0, 1), "had not finished"), ((0,), "Worker 1 sent no heartbeat")]
)
def test_after_a_restart_of_the_server_those_are_missed_of_whom_it_hears_nothing(heard, error):
    def beat(world):
        for worker in heard:
            world.center.handle(Beat(worker))

    steps = {10: train, 50: lambda world: world.center.mark_lost(1, 31.0), 90: Scripted.restart, 100: beat}
    with pytest.raises(WorkerError, match=error):
        Scripted(steps).watch().run()


def test_a_worker_that_leaves_is_missed_no_more():
    def leave(world):
        for worker in (0, 1):
            world.center.handle(Leave(worker))

    steps = {10: train, 50: lambda world: world.center.mark_lost(1, 31.0), 90: leave}
    assert Scripted(steps).watch().run() == 1


def test_an_elastic_training_misses_workers_but_no_share_that_was_lost_with_one():
    def lose(world):
        world.center.mark_lost(1, 31.0)

    with pytest.raises(WorkerError, match=r"workers \[0, 1\] had not finished"):
        Scripted({10: train, 50: lose}, Elastic(1, 2)).watch().run()
    with pytest.raises(WorkerError, match="min_workers=2"):
        Scripted({10: train, 50: lose}, Elastic(2, 2)).watch().run()
    with pytest.raises(WorkerError, match="min_workers=1"):
        Scripted({}, Elastic(1, 2)).watch().run()
