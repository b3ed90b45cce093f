"""The loop does what the answers order: another window, a stop; and it keeps the memory of a rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from test_loop import CountingReplica, Killed, ListFeed, caller, make_center, windows_of

from distkeras.algorithms import DOWNPOUR, Algorithm, DyLU
from distkeras.center import BadUpdates, Layout, restore_snapshot, take_snapshot
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Join, Order
from distkeras.events import WorkerLeft
from distkeras.worker.loop import Loop

OVERLAP = pytest.mark.parametrize("overlap", [False, True])


def run(algorithm, center, call=None, rows=20, num_epoch=2, replica=None, overlap=False, attempt=0):
    """Train, and return the replica and the orders that the loop passed on, with their places."""
    replica, heard = replica or CountingReplica(), []
    loop = Loop(
        replica,
        ListFeed(rows),
        algorithm,
        call or caller(center),
        worker=0,
        num_epoch=num_epoch,
        overlap=overlap,
        on_orders=lambda *orders: heard.append(orders),
    )
    loop.run(attempt)
    return replica, heard


def ordering(center, orders):
    """Let the driver give the orders in `orders` after the commits of these numbers."""

    def call(request):
        reply = caller(center)(request)
        if isinstance(request, Exchange) and request.sequence in orders:
            center.handle(Order(orders[request.sequence]))
        return reply

    return call


@OVERLAP
def test_a_stopped_worker_commits_its_window_and_leaves(overlap):
    algorithm = DOWNPOUR(communication_window=3)
    center = make_center(algorithm, overlap=overlap)
    replica, _ = run(algorithm, center, ordering(center, {2: Orders(stop=True)}), overlap=overlap)
    windows = 4 if overlap else 3  # An answer takes effect one window later if exchanges overlap.
    assert replica.trained == list(range(3 * windows))
    assert center.snapshot().tolist() == [3.0 * windows]
    assert isinstance(center.event_log.read(0).events[-1], WorkerLeft)


def test_a_worker_that_joins_after_the_stop_trains_nothing_and_leaves():
    center = make_center(DOWNPOUR())
    center.handle(Order(Orders(stop=True)))
    replica, _ = run(DOWNPOUR(), center)
    assert replica.trained == []
    assert isinstance(center.event_log.read(0).events[-1], WorkerLeft)


@OVERLAP
def test_the_ordered_window_holds_from_the_next_one_on(overlap):
    algorithm = DOWNPOUR(communication_window=3)
    center = make_center(algorithm, overlap=overlap)
    call = ordering(center, {1: Orders(window=5), 3: Orders(window=2)})
    replica, _ = run(algorithm, center, call, num_epoch=1, overlap=overlap)
    steps = [window.steps for window in windows_of(center)]
    assert steps == ([3, 3, 3, 5, 5, 1] if overlap else [3, 3, 5, 5, 2, 2])
    assert replica.trained == list(range(20))
    assert center.snapshot().tolist() == [20.0]


def test_an_ordered_window_replaces_one_of_an_epoch():
    algorithm = DOWNPOUR(communication_window=None)
    center = make_center(algorithm)
    run(algorithm, center, ordering(center, {1: Orders(window=4)}), rows=6, num_epoch=4)
    assert [window.steps for window in windows_of(center)] == [6, 6, 4, 4, 4]


@OVERLAP
def test_new_orders_are_passed_on_once_between_two_windows(overlap):
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm, overlap=overlap)
    rate = Orders(learning_rate=0.5)
    _, heard = run(algorithm, center, ordering(center, {2: rate, 6: Orders(step=9)}), overlap=overlap)
    late = 1 if overlap else 0
    both = Orders(2, learning_rate=0.5, step=9)
    places = [(0, 4 * (3 + late)), (1, 4 * (7 + late) - 20)]
    assert heard == [(rate._replace(number=1), *places[0]), (both, *places[1])]


def test_a_replacement_gets_the_last_orders_as_it_joins():
    algorithm = DOWNPOUR(communication_window=4)
    center = make_center(algorithm)
    orders = ordering(center, {2: Orders(learning_rate=0.5, window=2)})

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 5:
            raise Killed
        return orders(request)

    with pytest.raises(Killed):
        run(algorithm, center, call)
    _, heard = run(algorithm, center, attempt=1)
    assert heard == [(Orders(1, learning_rate=0.5, window=2), 0, 14)]
    assert [window.steps for window in windows_of(center)] == [4, 4, 4] + [2] * 14


def test_a_worker_that_joins_a_restarted_server_again_obeys_its_orders():
    algorithm = DOWNPOUR(communication_window=4)
    centers = [make_center(algorithm)]

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 3 and len(centers) == 1:
            snapshot = take_snapshot(centers[0], {})
            centers.append(make_center(algorithm))
            restore_snapshot(centers[1], snapshot)
            centers[1].handle(Order(Orders(window=6)))
        return caller(centers[-1])(request)

    run(algorithm, centers[0], call)
    assert [window.steps for window in windows_of(centers[1])][-2:] == [6, 2]
    assert centers[1].snapshot().tolist() == [40.0]


# Windows by worker.


def test_the_first_window_of_a_process_tells_no_time_and_the_later_ones_do():
    algorithm, told = DOWNPOUR(communication_window=5), []
    center = make_center(algorithm)

    def call(request):
        if isinstance(request, Exchange):
            told.append(request.seconds)
        return caller(center)(request)

    run(algorithm, center, call)
    assert told[0] == 0
    assert all(0 < seconds < 60 for seconds in told[1:])


@OVERLAP
def test_a_slow_worker_trains_the_window_that_the_rule_gives_it(overlap):
    algorithm = DyLU(communication_window=8)
    center = make_center(algorithm, num_workers=2, overlap=overlap)
    center.handle(Join(1))
    center.handle(Exchange(1, 1, 8, 8, 0, 8, np.zeros(1, np.float32), seconds=1e-12))
    run(algorithm, center, overlap=overlap)
    steps = [window.steps for window in windows_of(center) if window.worker == 0]
    assert steps[:3] == [8, 8, 8] if overlap else [8, 8, 1]
    assert set(steps[3:]) == {1}
    assert sum(steps) == 40


# The memory of a worker.


@dataclass(frozen=True)
class Counting(Algorithm):
    """Sends how many messages its worker has sent, and notes what it adopts."""

    communication_window: int | None = 4

    def commit_with(self, local, anchor, num_steps, memory):
        memory["sent"] = memory.get("sent", np.zeros(1, np.float32)) + 1
        return np.full_like(local, memory["sent"][0])

    def adopt_with(self, local, message, reply, memory):
        memory["adopted"] = np.append(memory.get("adopted", []), message[0])
        return reply

    def apply(self, center, message, commit, state):
        center[:] = message
        return center


@OVERLAP
def test_a_worker_keeps_its_memory_from_window_to_window(overlap):
    center = make_center(Counting(), overlap=overlap)
    run(Counting(), center, overlap=overlap)
    assert center.snapshot().tolist() == [10.0]


def test_a_replacement_begins_with_an_empty_memory():
    center = make_center(Counting())

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 4:
            raise Killed
        return caller(center)(request)

    with pytest.raises(Killed):
        run(Counting(), center, call)
    assert center.snapshot().tolist() == [3.0]
    run(Counting(), center, attempt=1)
    assert center.snapshot().tolist() == [7.0]


def test_a_worker_whose_window_was_skipped_begins_with_an_empty_memory():
    center = make_center(Counting(), bad_updates=BadUpdates("skip"))

    def call(request):
        if isinstance(request, Exchange) and request.sequence == 6:
            request.message[:] = np.nan
        return caller(center)(request)

    run(Counting(), center, call)
    assert center.snapshot().tolist() == [4.0]


def test_statistics_are_no_part_of_the_memory_that_a_rule_sees():
    layout = Layout((("w", (2,)),), (("mean", (1,)),))
    center = make_center(Counting(), size=3, num_trainable=2)
    run(Counting(), center, replica=CountingReplica(layout))
    assert center.snapshot()[:2].tolist() == [10.0, 10.0]
    assert center.snapshot()[2] == sum(range(40))
