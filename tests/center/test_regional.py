"""Servers in two levels: the real centers, beside the simulator; each row once, also after a restart."""

from __future__ import annotations

import io
from dataclasses import dataclass, field

import numpy as np
import pytest

from distkeras.algorithms import AEASGD, DOWNPOUR, DelayedNesterov, DynSGD, HALoS, LocalSGD, Sequential
from distkeras.center import (
    CenterConfig,
    ProtocolError,
    Regional,
    RegionServers,
    SnapshotError,
    make_center,
    restore_snapshot,
    take_snapshot,
)
from distkeras.center.answers import Exchanged, Joined, Polled, Pulled, Refused, Rejoin
from distkeras.center.elastic import Elastic
from distkeras.center.orders import Orders
from distkeras.center.requests import (
    DRIVER,
    Exchange,
    Follow,
    Join,
    Keep,
    Leave,
    Order,
    Poll,
    Pull,
    Write,
)
from distkeras.center.snapshot import read
from distkeras.center.worker_side import WorkerSide
from distkeras.events import CenterFailed, CenterKept, EpochEnded, Window
from distkeras.simulation import Constant, Quadratic, Regions, simulate
from distkeras.simulation.problem import Replica

PROBLEM = Quadratic(curvature=(0.5, 1.0, 2.0))
RATE = 0.05
LOCAL = DelayedNesterov(2, outer_learning_rate=0.8, period=2)
ROWS = 3
"""Rows of a window of these workers, where a test counts them."""


def center_of(rule=LOCAL, above=None, num_workers=4, num_regions=2, **further):
    regions = RegionServers(num_regions, above or HALoS(4))
    config = CenterConfig(rule, num_workers, regions=regions, **further)
    return make_center(config, PROBLEM.initial, clock=lambda: 0.0)


@dataclass
class Workers:
    """All workers of a center, which train a window when they are told to."""

    center: Regional
    places: dict = field(default_factory=dict)

    def __post_init__(self):
        config = self.center.config
        self.side = WorkerSide(config.algorithm, PROBLEM.num_trainable, None)
        for worker in range(config.num_workers):
            self.join(worker)

    def join(self, worker):
        [(_, joined)] = self.center.handle(Join(worker))
        assert isinstance(joined, Joined)
        replica = Replica(
            worker=worker,
            num_workers=self.center.config.num_workers,
            learning_rate=RATE,
            momentum=0.0,
            seed=(0, worker),
            averaging=None,
        )
        self.places[worker] = [replica, joined.center, joined.center, {}, joined.sequence]

    def window(self, worker):
        place = self.places[worker]
        replica, weights, anchor, memory, sequence = place
        steps = self.center.config.algorithm.communication_window
        local, _ = PROBLEM.train(weights, steps, replica)
        message = self.side.message(local, anchor, steps, 0, memory)
        request = Exchange(worker, sequence + 1, steps, ROWS, 0, sequence + 1, message.copy())
        [(_, answer)] = self.center.handle(request)
        if isinstance(answer, Exchanged):
            place[1] = self.side.adopted(local, message, answer, 0, memory)
            place[2] = self.side.anchor(place[1], answer)
            place[4] += 1
        return answer

    def leave(self, worker):
        [(_, answer)] = self.center.handle(Leave(worker))
        return answer


def in_turn(workers, count, num_regions=2):
    """Let the regions have `count` windows each, those of one exchange after those of another."""
    each = workers.center.num_workers // num_regions
    window = workers.center.config.regions.window
    for first in range(0, count, window):
        for region in range(num_regions):
            for index in range(first, min(first + window, count)):
                workers.window(region * each + index % each)


def events_of(center, kind):
    [(_, polled)] = center.handle(Poll(0))
    assert isinstance(polled, Polled)
    return [event for event in polled.events if isinstance(event, kind)]


@pytest.mark.parametrize(
    ("rule", "above", "each"),
    [
        (LOCAL, HALoS(4, period=2), 2),
        (DynSGD(3), HALoS(4, alpha=1.0), 2),
        (DOWNPOUR(1), DOWNPOUR(6), 3),
        (AEASGD(1), HALoS(2), 1),
    ],
)
def test_the_global_center_moves_as_in_the_simulator_bit_for_bit(rule, above, each):
    regions = Regions(PROBLEM, rule, each, Constant())
    exchanges = 10
    told = simulate(
        above,
        regions,
        num_workers=2,
        num_commits=2 * exchanges,
        step_time=regions,
        learning_rate=RATE,
        seed=0,
    )
    center = center_of(rule, above, 2 * each)
    centers = [center.snapshot()]
    workers, window = Workers(center), above.communication_window
    for first in range(0, exchanges * window, window):
        for region in range(2):
            for index in range(first, first + window):
                workers.window(region * each + index % each)
            centers.append(center.snapshot())
    np.testing.assert_array_equal(np.array(centers), told.centers)
    assert center.top.num_commits == 2 * exchanges


def test_one_region_whose_center_is_taken_as_it_is_is_one_level():
    center = center_of(LOCAL, Sequential(1), 3, 1)
    alone = make_center(CenterConfig(LOCAL, 3), PROBLEM.initial, clock=lambda: 0.0)
    ours, theirs = Workers(center), Workers(alone)
    for worker in (0, 1, 1, 2, 0, 2, 2):
        ours.window(worker)
        theirs.window(worker)
        np.testing.assert_array_equal(center.snapshot(), alone.snapshot())


def test_every_row_reaches_the_global_center_once_and_the_last_ones_when_a_region_is_empty():
    center = center_of()
    workers = Workers(center)
    for worker, count in enumerate((3, 4, 1, 2)):
        for _ in range(count):
            workers.window(worker)
    assert [record["samples"] for record in center.top.state().workers] == [4 * ROWS, 0]
    for worker in range(4):
        workers.leave(worker)
    assert [record["samples"] for record in center.top.state().workers] == [7 * ROWS, 3 * ROWS]
    assert sum(event.samples for event in events_of(center, Window)) == 10 * ROWS
    assert center.event_log.num_updates == 10
    assert [event.worker for event in events_of(center, Window)] == [0] * 3 + [1] * 4 + [2] + [3] * 2


def test_a_repeated_commit_counts_once_in_both_levels():
    center = center_of()
    workers = Workers(center)
    for _ in range(4):
        workers.window(0)
    before = center.snapshot()
    message = np.ones_like(PROBLEM.initial)
    [(_, answer)] = center.handle(Exchange(0, 4, 2, ROWS, 0, 4, message))
    assert isinstance(answer, Exchanged)
    assert answer.restart
    np.testing.assert_array_equal(answer.reply, center.members[0].snapshot())
    np.testing.assert_array_equal(center.snapshot(), before)
    assert center.num_commits == 4


@pytest.mark.parametrize("done", [0, 3, 4, 5, 9])
def test_a_restored_server_goes_on_where_its_snapshot_was_taken(done):
    def trained(restarts):
        center = center_of(above=HALoS(4, period=3, activation=0.1), epoch_rows=30)
        workers = Workers(center)
        in_turn(workers, done)
        if restarts:
            file = io.BytesIO()
            take_snapshot(center, {}).write(file)
            file.seek(0)
            center = center_of(above=HALoS(4, period=3, activation=0.1), epoch_rows=30)
            restore_snapshot(center, read(file))
            [(_, answer)] = center.handle(Leave(0))
            assert isinstance(answer, Rejoin)
            workers.center = center
        for worker in range(4):  # As their predecessors would: they start from their region's center.
            workers.join(worker)
        in_turn(workers, 7)
        for worker in range(4):
            workers.leave(worker)
        return center

    ours, theirs = trained(True), trained(False)
    np.testing.assert_array_equal(ours.snapshot(), theirs.snapshot())
    for one, other in zip(ours.members, theirs.members, strict=True):
        np.testing.assert_array_equal(one.snapshot(), other.snapshot())
    assert ours.top.state().workers == theirs.top.state().workers
    assert events_of(ours, EpochEnded) == events_of(theirs, EpochEnded)[-len(events_of(ours, EpochEnded)) :]


def test_a_snapshot_of_one_level_does_not_fit():
    regional = center_of(num_regions=1)
    alone = make_center(CenterConfig(LOCAL, 4), PROBLEM.initial, clock=lambda: 0.0)
    with pytest.raises(SnapshotError, match=r"a global center with 1 shards and 1 regions. Received: none"):
        restore_snapshot(regional, take_snapshot(alone, {}))


def test_epochs_count_the_rows_of_all_regions_and_end_once():
    center = center_of(epoch_rows=4 * ROWS)
    workers = Workers(center)
    for worker in (0, 2, 1, 3, 0):
        workers.window(worker)
    for worker in (0, 1):
        workers.leave(worker)
    assert [(event.samples, event.whole) for event in events_of(center, EpochEnded)] == [(4 * ROWS, True)]
    for worker in (2, 3):
        workers.leave(worker)
    ended = events_of(center, EpochEnded)
    assert [(event.samples, event.whole) for event in ended] == [(4 * ROWS, True), (5 * ROWS, False)]


def test_a_copy_is_of_the_global_center_after_the_rows_of_all_regions():
    center = center_of(above=HALoS(1))
    workers = Workers(center)
    center.handle(Keep(3 * ROWS))
    for worker in (0, 2, 1):
        workers.window(worker)
    then = center.snapshot()
    workers.window(3)
    assert not np.array_equal(center.snapshot(), then)
    [(_, pulled)] = center.handle(Pull(kept=3 * ROWS))
    assert isinstance(pulled, Pulled)
    np.testing.assert_array_equal(pulled.center, then)
    [kept] = events_of(center, CenterKept)
    assert (kept.samples, kept.num_updates) == (3 * ROWS, 3)
    center.handle(Keep(4 * ROWS))  # They have come already.
    [(_, now)] = center.handle(Pull(kept=4 * ROWS))
    np.testing.assert_array_equal(now.center, center.snapshot())
    [(_, none)] = center.handle(Pull(kept=5))
    assert isinstance(none, Refused)


def test_an_order_reaches_the_workers_of_all_regions():
    center = center_of()
    workers = Workers(center)
    assert center.handle(Order(Orders(stop=True)))[0][0] == DRIVER
    assert all(workers.window(worker).orders.stop for worker in range(4))


def test_what_the_global_server_refuses_ends_the_training_with_the_region():
    center = center_of(DOWNPOUR(1), HALoS(2, outer_learning_rate=1e30))
    workers = Workers(center)
    message = np.full_like(PROBLEM.initial, 1e10)
    center.handle(Exchange(2, 1, 1, ROWS, 0, 1, message.copy()))
    [(_, answer)] = center.handle(Exchange(2, 2, 1, ROWS, 0, 2, message.copy()))
    assert isinstance(answer, Refused)
    assert "The global server has refused what region 1 sent: after a finite message" in answer.reason
    [failed] = events_of(center, CenterFailed)
    assert failed.error == answer.reason
    with pytest.raises(SnapshotError):
        take_snapshot(center, {})
    assert isinstance(workers.window(0), Exchanged)


def test_requests_that_need_one_level_are_refused():
    center = center_of()
    for request in (Follow(), Write(PROBLEM.initial), Order(Orders(until=5))):
        with pytest.raises(ProtocolError, match=r"level"):
            center.handle(request)
    with pytest.raises(ProtocolError, match=r"Expected a worker in 0\.\.3. Received: 4"):
        center.handle(Join(4))


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"num_workers": 5}, "2 regions can share equally. Received: num_workers=5"),
        ({"rule": LocalSGD()}, "asynchronous algorithm for their workers"),
        ({"rule": DOWNPOUR(None)}, "asynchronous algorithm for their workers"),
        ({"elastic": Elastic(1, 2)}, "fixed number of workers"),
        ({"until": 5}, "fixed number of workers"),
        ({"above": LocalSGD()}, "Expected an asynchronous algorithm between the regions"),
        ({"above": HALoS(None)}, "`communication_window` in commits"),
        ({"num_regions": 0}, "`regions` must be a positive integer"),
    ],
)
def test_regions_refuse_what_they_cannot_do(further, message):
    with pytest.raises(ValueError, match=message):
        center_of(**further)


def test_regions_need_a_rule():
    with pytest.raises(TypeError, match="Expected an instance"):
        RegionServers(2, HALoS)
