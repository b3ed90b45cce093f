"""The loop with fragments and late replies, against a real center."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distkeras.algorithms import ADAG, AEASGD, DOWNPOUR, DiLoCo, StreamingDiLoCo
from distkeras.center import (
    BadUpdates,
    CenterConfig,
    Layout,
    fragments_of,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Order
from distkeras.events import Window
from distkeras.worker.loop import Loop
from distkeras.worker.minibatch import Minibatch

LAYOUT = Layout((("a/w", (1,)), ("b/w", (1,)), ("c/w", (1,))), (("a/mean", (1,)), ("b/mean", (1,))))


class SteadyReplica:
    """Adds `step` to its weights with every minibatch, and 1 to its statistics; notes what it has."""

    def __init__(self, layout=LAYOUT, step=1.0):
        self.layout, self.step = layout, step
        self.weights = np.zeros(layout.size, np.float32)
        self.trained, self.seen = [], []
        self.bad = {}

    def train(self, x, y=None, sample_weight=None):
        self.seen.append(self.weights)
        self.weights = self.weights + np.float32(self.step)
        self.weights[self.layout.num_trainable :] += np.float32(1 - self.step)
        self.weights[0] = self.bad.pop(x, self.weights[0])
        self.trained.append(x)

    def read(self):
        return self.weights.copy()

    def write(self, vector):
        self.weights = vector.copy()

    adopt = write

    def metrics(self):
        return {"loss": 0.5}

    def collect_metrics(self, before=()):
        pass


class Feed:
    """`rows` minibatches an epoch of two rows each, numbered through all epochs."""

    def __init__(self, rows):
        self.rows = rows

    def epoch(self, epoch, start=0):
        for step in range(start, self.rows):
            yield Minibatch(epoch * self.rows + step, None, None, 2)


class Parts(DOWNPOUR):
    fragments = 2


class DividedParts(ADAG):
    fragments = 3


class ElasticParts(AEASGD):
    fragments = 2


def center_of(rule, layout=LAYOUT, start=0.0, **options):
    config = CenterConfig(
        rule, num_trainable=layout.num_trainable, fragments=fragments_of(layout, rule), **options
    )
    return make_center(config, np.full(layout.size, start, np.float32), clock=itertools.count().__next__)


def caller(center):
    def call(request):
        ((_, reply),) = center.handle(request)
        return reply

    return call


def run(center, rows, num_epoch=1, replica=None, attempt=0, call=None):
    replica, config = replica or SteadyReplica(), center.config
    loop = Loop(
        replica,
        Feed(rows),
        config.algorithm,
        call or caller(center),
        worker=0,
        num_epoch=num_epoch,
        overlap=config.overlap,
        fragments=config.fragments,
    )
    loop.run(attempt)
    return replica


def windows_of(center):
    return [event for event in center.event_log.unread().events if isinstance(event, Window)]


TABLE = [
    (0, 0.0, [1, -1, -3, -11, -13, -15, -17, -19, -21, -35, -59], [-9, -23, -47]),
    (0, 0.5, [1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5, -40.25], [-9, -17, -32]),
    (1, 0.0, [1, -1, -3, -7, -9, -11, -13, -15, -17, -27, -47], [-9, -19, -39]),
    (1, 0.5, [1, -1, -3, -6, -8, -10, -12, -14, -16, -21.5, -35.75], [-9, -15, -29]),
    (0, 1.0, [1 - 2 * step for step in (*range(10), 15)], [-9, -11, -23]),
]


@pytest.mark.parametrize(("late", "alpha", "first", "second"), TABLE)
def test_a_worker_takes_up_each_fragment_when_the_oracle_says(late, alpha, first, second):
    layout = Layout((("a/w", (1,)), ("b/w", (1,))))
    rule = StreamingDiLoCo(6, 2.0, 0.0, alpha, fragments=2)
    replica = run(center_of(rule, layout, 1.0, overlap=late), 16, replica=SteadyReplica(layout, -2.0))
    seen = np.array(replica.seen)
    np.testing.assert_allclose(seen[[*range(10), 15], 0], first, rtol=1e-6)
    np.testing.assert_allclose(seen[[5, 6, 12], 1], second, rtol=1e-6)


@pytest.mark.parametrize("rule", [Parts(4), DOWNPOUR(4), Parts(7)], ids=repr)
@pytest.mark.parametrize("num_epoch", [1, 3])
def test_every_minibatch_moves_every_fragment_once(rule, num_epoch):
    center = center_of(rule)
    replica = run(center, 10, num_epoch)
    total = 10 * num_epoch
    assert replica.trained == list(range(total))
    assert center.snapshot().tolist() == [total] * 5
    windows = windows_of(center)
    assert sum(window.steps for window in windows) == total
    assert sum(window.samples for window in windows) == 2 * total
    assert [window.iteration for window in windows] == list(range(len(windows)))
    assert [window.fragment for window in windows] == [
        index % center.config.num_fragments for index in range(len(windows))
    ]
    assert [window.steps for window in windows].count(0) <= 1


def test_a_fragment_counts_the_steps_since_its_last_exchange():
    center = center_of(DividedParts(6))
    run(center, 12)
    # ADAG divides the progress of six steps by six, but the first window of the first fragment has two steps.
    np.testing.assert_allclose(center.snapshot()[:3], [3, 3, 2])


@pytest.mark.parametrize("late", [1, 2])
def test_late_replies_drop_what_was_trained_meanwhile_unless_the_rule_keeps_it(late):
    dropped = center_of(DOWNPOUR(4), overlap=late)
    run(dropped, 12)
    assert dropped.snapshot()[:3].tolist() == [12 - 3 * late] * 3
    elastic = center_of(ElasticParts(4, rho=5.0, learning_rate=0.1), overlap=1)
    replica = run(elastic, 40)
    assert (replica.weights + elastic.snapshot())[:3].tolist() == [40] * 3


def test_a_training_in_fragments_that_has_ended_goes_on_for_more_epochs():
    center = center_of(Parts(6))
    run(center, 10, 2)
    resumed = center_of(Parts(6))
    restore_snapshot(resumed, take_snapshot(center, {}))
    assert run(resumed, 10, 3, attempt=1).trained == list(range(20, 30))
    assert resumed.snapshot().tolist() == [30] * 5


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("stop_at", range(1, 6))
def test_a_training_that_is_stopped_and_resumed_trains_every_minibatch_once(stop_at, late):
    center = center_of(Parts(6), overlap=late)
    call, calls = caller(center), itertools.count()

    def stops(request):
        if next(calls) == stop_at:
            center.handle(Order(Orders(stop=True)))
        return call(request)

    first = run(center, 10, 3, call=stops)
    assert 0 < len(first.trained) < 30
    resumed = center_of(Parts(6), overlap=late)
    restore_snapshot(resumed, take_snapshot(center, {}).resumed())
    second = run(resumed, 10, 3, attempt=1)
    assert first.trained + second.trained == list(range(30))
    if not late:  # Late replies drop steps.
        assert resumed.snapshot().tolist() == [30] * 5


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("killed_at", range(4, 12))
def test_a_replaced_worker_trains_again_what_a_fragment_lacks(killed_at, late):
    class Killed(Exception):
        pass

    center = center_of(Parts(6), overlap=late)
    call, calls = caller(center), itertools.count(1)

    def dies(request):
        if next(calls) == killed_at:
            raise Killed
        return call(request)

    with pytest.raises(Killed):
        run(center, 10, 3, call=dies)
    replica = run(center, 10, 3, attempt=1)
    assert replica.trained[-1] == 29
    windows = windows_of(center)
    assert sum(window.steps for window in windows) == 30
    assert [window.iteration for window in windows] == list(range(len(windows)))
    if not late:
        assert center.snapshot().tolist() == [30] * 5


def test_lost_replies_and_a_restarted_server_count_nothing_twice():
    center = center_of(Parts(6))
    calls, snapshots = itertools.count(1), []
    current = [center]

    def call(request):
        number = next(calls)
        if number == 5:
            snapshots.append(take_snapshot(current[0], {}))
        if number == 8:
            current[0] = center_of(Parts(6))
            restore_snapshot(current[0], snapshots[0])
        if number % 3 == 0 and isinstance(request, Exchange):  # Its reply is lost: it is sent again.
            current[0].handle(request)
        ((_, reply),) = current[0].handle(request)
        return reply

    replica = run(center, 10, 3, call=call)
    assert current[0] is not center
    assert set(replica.trained) == set(range(30))
    assert len(replica.trained) > 30
    assert current[0].snapshot().tolist() == [30] * 5


@pytest.mark.parametrize("late", [0, 1])
def test_a_skipped_window_continues_from_the_whole_center(late):
    center = center_of(Parts(6), overlap=late, bad_updates=BadUpdates("skip"))
    replica = SteadyReplica()
    replica.bad[7] = np.nan
    run(center, 10, 3, replica=replica)
    assert np.isfinite(center.snapshot()).all()
    assert center.snapshot()[1] >= 18  # The other fragment loses what it had not sent.


def test_one_fragment_without_mixing_is_diloco_bit_for_bit():
    one = center_of(StreamingDiLoCo(4, 0.7, 0.9, alpha=0.0, fragments=1))
    other = center_of(DiLoCo(4, 0.7, 0.9))
    for center in (one, other):
        run(center, 10, 3, replica=SteadyReplica(step=0.1))
    np.testing.assert_array_equal(one.snapshot(), other.snapshot())


class KeepsAll(Parts):
    """Adds what was trained since the message to the reply."""

    anchor_at_reply = True

    def commit_with(self, local, anchor, num_steps, memory):
        memory["sent"] = local.copy()
        return local - anchor

    def adopt_with(self, local, message, reply, memory):
        return reply + (local - memory["sent"])


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_rule_with_a_memory_keeps_what_was_trained_during_the_exchange(late):
    center = center_of(KeepsAll(6), overlap=late)
    replica = run(center, 10, 3)
    assert replica.weights[:3].tolist() == [30] * 3
    assert center.snapshot()[:3].tolist() == [30] * 3
