"""What the driver and the rule order: it goes out with every answer, has a number, and survives a restart."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, Algorithm, DyLU, LocalSGD
from distkeras.center import (
    BadUpdates,
    Center,
    CenterConfig,
    Independent,
    ProtocolError,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Done, Exchanged, Joined, Skipped
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Join, Keep, Leave, Order
from distkeras.center.snapshot import read
from distkeras.record import Recorded, replay


def start(algorithm=None, num_workers=2, **options):
    config = CenterConfig(algorithm or DOWNPOUR(), num_workers, **options)
    center = Center(config, np.zeros(3, np.float32), clock=itertools.count().__next__)
    for worker in range(num_workers):
        center.handle(Join(worker))
    return center


def commit(worker, sequence, value=1.0, steps=2, seconds=0.0):
    message = np.full(3, value, np.float32)
    return Exchange(worker, sequence, steps, 8, 0, 2 * sequence, message, {"loss": 0.5}, seconds=seconds)


def answer(center, request):
    ((_, reply),) = center.handle(request)
    return reply


def order(center, **orders):
    assert answer(center, Order(Orders(**orders))) == Done()


def test_without_orders_the_answers_carry_none():
    center = start()
    assert answer(center, Join(0, 1)).orders is None
    assert answer(center, commit(0, 1)).orders is None


def test_every_answer_to_a_worker_carries_the_orders_in_force():
    center = start(bad_updates=BadUpdates("skip"))
    order(center, learning_rate=0.01, step=40)
    expected = Orders(1, learning_rate=0.01, step=40)
    replies = [
        answer(center, commit(0, 1)),
        answer(center, commit(0, 1)),  # sent again
        answer(center, commit(1, 1, math.nan)),
        answer(center, Join(1, 1)),
    ]
    assert [type(reply) for reply in replies] == [Exchanged, Exchanged, Skipped, Joined]
    assert [reply.orders for reply in replies] == [expected] * 4


def test_a_round_tells_all_its_workers():
    center = start(LocalSGD())
    assert center.handle(commit(0, 1)) == []
    order(center, stop=True)
    answers = center.handle(commit(1, 1))
    assert [(worker, reply.orders) for worker, reply in answers] == [
        (0, Orders(1, True)),
        (1, Orders(1, True)),
    ]


def test_a_round_that_a_loss_completes_tells_its_workers():
    center = start(LocalSGD(), without_lost=True)
    center.handle(commit(0, 1))
    order(center, stop=True)
    ((_, reply),) = center.mark_lost(1, 30.0)
    assert reply.orders == Orders(1, True)


def test_a_change_has_the_next_number_and_leaves_what_it_does_not_name():
    center = start()
    order(center, learning_rate=0.1, window=7)
    order(center, evaluate=12, send_optimizer=4, until=90)
    center.handle(Keep(8))
    center.handle(commit(1, 1))
    order(center, evaluate=8)
    order(center, learning_rate=0.2)
    assert answer(center, commit(0, 1)).orders == Orders(
        4, learning_rate=0.2, window=7, evaluate=8, send_optimizer=4, until=90
    )


@pytest.mark.parametrize(
    "orders",
    [
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"learning_rate": math.inf},
        {"window": 0},
        {"window": True},
        {"step": -1},
        {"evaluate": 2**63},
        {"evaluate": 0},
        {"send_optimizer": True},
        {"until": 0},
    ],
)
def test_senseless_orders_are_refused_and_change_nothing(orders):
    center = start()
    (name,) = orders
    with pytest.raises(ProtocolError, match=f"`{name}` must be .* Received: {name}="):
        center.handle(Order(Orders(**orders)))
    assert answer(center, commit(0, 1)).orders is None


def restarted(center, algorithm=None):
    file = io.BytesIO()
    take_snapshot(center, {}).write(file)
    again = start(algorithm, num_workers=center.num_workers)
    restore_snapshot(again, read(io.BytesIO(file.getvalue())))
    return again


def test_a_restarted_server_has_the_orders_and_the_speeds_of_its_snapshot():
    center = start(DyLU(20))
    order(center, learning_rate=0.5, step=3)
    for worker, seconds in ((0, 1.0), (1, 2.0)):
        center.handle(commit(worker, 1, steps=20, seconds=seconds))
    again = restarted(center, DyLU(20))
    assert answer(again, Join(1, 1)).orders == Orders(1, learning_rate=0.5, window=10, step=3)


def test_a_resumed_training_keeps_the_course_of_the_interrupted_one_but_not_what_it_was_to_do_at_once():
    center = start()
    order(center, stop=True, learning_rate=0.5, step=3, window=2, evaluate=7, send_optimizer=1)
    snapshot = take_snapshot(center, {})
    for taken, expected in (
        (snapshot, Orders(1, True, 0.5, 2, 3, None, 1)),  # The copy is in no snapshot.
        (snapshot.resumed(), Orders(2, False, 0.5, 2, 3)),
        (take_snapshot(start(), {}).resumed(), None),
    ):
        again = start()
        restore_snapshot(again, taken)
        assert answer(again, Join(0, 1)).orders == expected


def test_orders_are_for_every_member_of_an_ensemble():
    config = CenterConfig(DOWNPOUR(), 2, independent=True)
    center = Independent(config, np.zeros((2, 3), np.float32), clock=lambda: 7.0)
    order(center, stop=True)
    assert [answer(center, Join(worker)).orders for worker in (0, 1)] == [Orders(1, True)] * 2


# Windows by worker.


def windows_of(center, sequence, steps=20, seconds=(1.0, 2.0, 4.0)):
    """Return the windows that workers of these speeds are told at their commit number `sequence`."""
    replies = [
        answer(center, commit(worker, sequence, steps=steps, seconds=second))
        for worker, second in enumerate(seconds)
    ]
    return [reply.orders.window for reply in replies]


def test_a_worker_has_the_window_that_its_speed_gives():
    center = start(DyLU(20), num_workers=3)
    assert answer(center, Join(2, 1)).orders.window == 20  # of no worker is the speed known
    assert windows_of(center, 1) == [20, 10, 5]
    assert answer(center, Join(2, 2)).orders.window == 5  # a replacement: by the speed of its predecessor
    center.handle(Leave(0))
    assert windows_of(center, 2, seconds=()) == []
    assert answer(center, commit(1, 2, steps=10, seconds=1.0)).orders.window == 20  # now the fastest


def test_a_speed_is_an_average_over_recent_windows_and_a_window_without_time_tells_none():
    center = start(DyLU(100))
    record = center._records.of(0)
    for sequence in range(1, 40):
        center.handle(commit(0, sequence, steps=10, seconds=1.0))
    assert record.speed == pytest.approx(10)
    center.handle(commit(0, 40, steps=10, seconds=0.0))
    assert record.speed == pytest.approx(10)
    center.handle(commit(0, 41, steps=10, seconds=2.0))
    # As after five windows of 10 steps in 1 s: 0.8 * 50 + 10 steps in 0.8 * 5 + 2 seconds.
    assert record.speed == pytest.approx(50 / 6, rel=1e-3)
    for sequence in range(42, 80):
        center.handle(commit(0, sequence, steps=10, seconds=2.0))
    assert record.speed == pytest.approx(5, rel=1e-3)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_senseless_time_is_refused(seconds):
    center = start()
    with pytest.raises(ProtocolError, match="Received: seconds="):
        center.handle(commit(0, 1, seconds=seconds))
    assert center.num_commits == 0


def test_the_drivers_window_comes_before_the_rules():
    center = start(DyLU(20), num_workers=3)
    order(center, window=3)
    assert windows_of(center, 1) == [3, 3, 3]


@dataclass(frozen=True)
class Choosing(DOWNPOUR):
    """Orders what it is given."""

    chosen: object = None

    def window(self, worker, speeds):
        return self.chosen


@pytest.mark.parametrize("chosen", [0, -1, 2.5, "5", True])
def test_a_rule_that_chooses_no_window_is_told(chosen):
    with pytest.raises(ValueError, match=r"must return a positive integer.*Received: "):
        start(Choosing(chosen=chosen))


def test_a_rule_may_leave_the_window_as_it_is():
    center = start(Choosing(chosen=None))
    assert answer(center, commit(0, 1)).orders is None
    order(center, stop=True)
    assert answer(center, commit(0, 2)).orders == Orders(1, True)
    assert answer(start(Choosing(chosen=np.int64(4))), commit(0, 1)).orders == Orders(window=4)


def test_no_present_rule_but_dylu_chooses_windows():
    assert type(DOWNPOUR()).window is Algorithm.window
    assert DOWNPOUR(7).window(0, {}) == 7
    assert DOWNPOUR(None).window(0, {}) is None


# The record.


def test_orders_and_windows_are_recorded_and_replayed(tmp_path):
    path = str(tmp_path / "server-0.record")
    center = start(DyLU(20), num_workers=3)
    recorded = Recorded(center, path, restart=True)
    for worker in range(3):
        recorded.handle(Join(worker, 1))
    told = windows_of(recorded, 1)
    order(recorded, learning_rate=0.25)
    told += windows_of(recorded, 2)
    order(recorded, window=6)
    told += windows_of(recorded, 3)
    recorded.close()
    seen = []
    replayed = replay(path, on_step=lambda step, _: seen.extend(step.told))
    assert replayed.center.tobytes() == center.snapshot().tobytes()
    assert [each.orders.window for each in seen if each.reply == "Exchanged"] == told
    assert [each.orders.number for each in seen if each.reply == "Exchanged"] == [0] * 3 + [1] * 3 + [2] * 3
    assert told == [20, 10, 5] * 2 + [6] * 3
