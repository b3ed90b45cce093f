"""A center whose workers are shares of the rows, which processes train by turns."""

from __future__ import annotations

import numpy as np
import pytest

from distkeras.algorithms import ADAG, DOWNPOUR, DiLoCo, DyLU, FedBuff, Ringmaster, Sequential
from distkeras.center import CenterConfig, make_center
from distkeras.center.elastic import Elastic
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Exchange, Join, Leave, MayJoin, Order, Poll
from distkeras.cluster.presence import Presence
from distkeras.events import EpochEnded, ServerRestored, WorkerJoined, WorkerLeft, WorkerLost


def make(algorithm, **options):
    config = CenterConfig(algorithm, 8, elastic=Elastic(1, 2), **options)
    return make_center(config, np.zeros(2, np.float32), clock=lambda: 0.0)


def exchange(center, worker, sequence, epoch=0, step=1):
    message = np.ones(2, np.float32)
    return center.handle(Exchange(worker, sequence, 1, 10, epoch, step, message))


def test_the_number_of_workers_in_a_rule_is_that_of_the_shares_that_are_trained_now():
    center = make(FedBuff())
    center.handle(Join(0))
    exchange(center, 0, 1)
    assert center.num_updates == 1  # One worker: a buffer of one.
    center.handle(Join(5))
    exchange(center, 0, 2)
    assert center.num_updates == 1
    exchange(center, 5, 1)
    assert center.num_updates == 2
    center.handle(Leave(5, rests=True))
    exchange(center, 0, 3)
    assert center.num_updates == 3
    center.handle(Join(5))
    center.mark_lost(5, 30.0)
    exchange(center, 0, 4)
    assert center.num_updates == 4


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [(DiLoCo(), "synchronous"), (DyLU(), "period"), (Sequential(), "with one worker")],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_rule_that_needs_a_fixed_number_of_workers_is_refused_by_name(algorithm, reason):
    with pytest.raises(ValueError, match=f"{algorithm.name}.*{reason}|{reason}.*{algorithm.name}"):
        make(algorithm)


def test_others_are_not():
    for algorithm in (ADAG(), DyLU(period=3), Ringmaster(), FedBuff()):
        make(algorithm)


@pytest.mark.parametrize("limits", [(0, 2), (1, 0), (3, 2), (True, 2), (1, 2.0)])
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ValueError, match="Received: m"):
        Elastic(*limits)


def test_shares_that_rest_all_at_once_do_not_end_an_epoch():
    center = make(DOWNPOUR(), epoch_rows=160)
    for epoch in range(2):
        for share in range(8):
            center.handle(Join(share))
            exchange(center, share, 2 * epoch + 1, epoch)
            exchange(center, share, 2 * epoch + 2, epoch + 1, 0)
            center.handle(Leave(share, rests=epoch == 0))
    events = center.handle(Poll())[0][1].events
    assert [event.whole for event in events if isinstance(event, EpochEnded)] == [True, True]
    assert [event.rests for event in events if isinstance(event, WorkerLeft)] == [True] * 8 + [False] * 8


def test_an_order_to_stop_ends_the_shares_that_nobody_trains():
    center = make(DOWNPOUR(), epoch_rows=1000)
    center.handle(Join(3))
    exchange(center, 3, 1)
    center.handle(Order(NO_ORDERS._replace(stop=True)))
    assert {worker for worker in range(8) if center.handle(MayJoin(worker))[0][1].left} == {*range(8)} - {3}
    assert all(center.handle(MayJoin(worker))[0][1].stopped for worker in range(8))
    center.handle(Leave(3))
    events = center.handle(Poll())[0][1].events
    assert [event.whole for event in events if isinstance(event, EpochEnded)] == [False]
    assert sorted(event.worker for event in events if isinstance(event, WorkerLeft)) == [*range(8)]


def test_a_restored_center_expects_no_share_that_rested():
    center = make(DOWNPOUR())
    for share in (0, 1):
        center.handle(Join(share))
        exchange(center, share, 1)
    center.handle(Leave(0, rests=True))
    again = make(DOWNPOUR())
    again.restore(center.state())
    assert again.expected() == [1]
    assert (again.misses(0), again.misses(1)) == (False, True)


def test_too_few_workers_for_too_long_are_complained_of():
    presence = Presence(2, 8, 100.0, started=0.0)
    presence.take(WorkerJoined(0, 0, 0, 0, 0.0), 50.0)
    assert presence.complaint(100.0) is None
    assert "min_workers=2" in presence.complaint(101.0)
    presence.take(WorkerJoined(1, 0, 0, 0, 0.0), 102.0)
    assert presence.complaint(1000.0) is None
    presence.take(WorkerLeft(1, 0.0, rests=True), 1000.0)
    presence.take(WorkerJoined(2, 0, 0, 0, 0.0), 1001.0)
    presence.take(WorkerLost(2, 30.0, 0.0), 1010.0)
    assert presence.complaint(1110.0) is None
    assert "now there are 1" in presence.complaint(1111.0)
    presence.take(ServerRestored([1] * 8, [True] * 7 + [False], 0, 0, 0.0), 1112.0)
    assert presence.complaint(1212.0) is None
    presence.take(WorkerJoined(7, 0, 0, 0, 0.0), 1213.0)  # The only one that is left to train.
    assert presence.complaint(9999.0) is None
