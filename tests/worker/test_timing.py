"""Where a worker's time goes, and what it says of its process, in the events of a center."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_loop import CountingReplica, ListFeed, caller, make_center, windows_of

from distkeras.algorithms import ADAG, DOWNPOUR
from distkeras.center import ProtocolError
from distkeras.center.answers import Exchanged
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Join, Order
from distkeras.events import Timing, WorkerAbout, WorkerJoined
from distkeras.worker.loop import Loop
from distkeras.worker.stopwatch import Stopwatch


class Clock:
    """Stands still, except where it is told to go on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class TimedReplica(CountingReplica):
    """A step takes 1 s; the read at the end of a window, where the backend is waited for, 4 s."""

    def __init__(self, clock):
        super().__init__()
        self._clock = clock

    def train(self, x, y=None, sample_weight=None):
        self._clock.now += 1
        super().train(x, y, sample_weight)

    def read(self):
        self._clock.now += 4
        return super().read()

    def write(self, vector):
        self._clock.now += 0.125
        super().write(vector)

    adopt = write


class TimedFeed(ListFeed):
    """A minibatch takes 0.25 s to come."""

    def __init__(self, rows, clock):
        super().__init__(rows)
        self._clock = clock

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            self._clock.now += 0.25
            yield batch


def trained(algorithm, *, overlap=False, held=0.5, orders=None):
    """Train two epochs of five minibatches in windows of two; an exchange takes 16 s by the clock."""
    clock, center = Clock(), make_center(algorithm)
    answer = caller(center)

    def call(request):
        reply = answer(request)
        if isinstance(reply, Exchanged):
            reply.held = held
            if not overlap:
                clock.now += 16
        return reply

    def obey(*_):
        clock.now += 1000  # An evaluation.

    if orders is not None:
        center.handle(Order(orders))
    watch = Stopwatch(clock=clock)
    loop = Loop(
        TimedReplica(clock),
        TimedFeed(5, clock),
        algorithm,
        call,
        worker=0,
        num_epoch=2,
        overlap=overlap,
        watch=watch,
        on_orders=obey,
    )
    loop.run()
    return [window.timing for window in windows_of(center)]


def test_the_time_of_a_window_is_divided_among_steps_rows_and_the_exchange_before():
    first, *others = trained(DOWNPOUR(communication_window=2))
    assert first == Timing(6.0, 0.5, 0.0, 0.0)
    # The worker writes the weights that it adopts to its replica within the exchange.
    assert others == [Timing(6.0, 0.5, 16.125, 0.5)] * 4


def test_what_the_driver_has_a_worker_evaluate_counts_as_nothing():
    assert trained(DOWNPOUR(communication_window=2), orders=Orders(evaluate=8)) == trained(
        DOWNPOUR(communication_window=2)
    )


def test_with_overlap_only_what_the_training_waits_for_counts_as_exchanging():
    for timing in trained(DOWNPOUR(communication_window=2), overlap=True, held=100.0):
        assert timing.computing == 6.0
        assert timing.blocked == timing.exchanging <= 0.125


def test_steps_that_overlap_an_exchange_count_as_computing():
    timings = trained(ADAG(communication_window=2), overlap=1)
    assert sum(timing.waiting for timing in timings) == 10 * 0.25
    assert sum(timing.computing for timing in timings) >= 10 * 1.0 + 5 * 4.0


def test_a_worker_that_joins_says_what_its_process_is_and_compiles_before_it_trains():
    about, phases = WorkerAbout("machine", 7, "3", "jax", "cpu", 2, 160, 2**20), []
    center = make_center(DOWNPOUR(communication_window=30))
    loop = Loop(
        CountingReplica(),
        ListFeed(60),
        DOWNPOUR(communication_window=30),
        caller(center),
        worker=0,
        num_epoch=1,
        on_phase=lambda phase: phases.append((phase, loop._trained)),
        about=about,
    )
    loop.run()
    assert phases == [("compiling", 0), ("training", 17)]
    (joined,) = [event for event in center.event_log.read(0).events if isinstance(event, WorkerJoined)]
    assert joined.about == about
    phases.clear()
    short = Loop(
        CountingReplica(),
        ListFeed(4),
        DOWNPOUR(communication_window=2),
        caller(make_center(DOWNPOUR(communication_window=2))),
        worker=0,
        num_epoch=1,
        on_phase=phases.append,
    )
    short.run()
    assert phases == ["compiling", "training"]


def test_a_window_with_a_timing_that_nothing_measures_is_refused():
    center = make_center(DOWNPOUR())
    center.handle(Join(0))
    for bad in (math.nan, math.inf, -1.0, 2.0**63):
        request = Exchange(0, 1, 1, 8, 0, 1, np.ones(1, np.float32), timing=Timing(computing=bad))
        with pytest.raises(ProtocolError, match="Expected finite numbers of at least 0"):
            center.handle(request)
    assert not windows_of(center)
