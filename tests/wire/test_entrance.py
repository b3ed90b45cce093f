"""Processes that ask whether they may join, beside one that trains as the same worker."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest
from serving import TOKEN, commit, serving

from distkeras.center import ProtocolError
from distkeras.center.answers import NotYet, Place
from distkeras.center.elastic import Elastic
from distkeras.center.orders import NO_ORDERS
from distkeras.center.requests import Beat, Join, Leave, MayJoin, Order, Poll
from distkeras.events import Window, WorkerJoined, WorkerLeft
from distkeras.wire.admission import Admission, Caller
from distkeras.wire.client import Client, JobStopped, Replaced


def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_copy_waits_for_the_process_that_trains_and_goes_on_where_it_was_lost():
    with serving() as (_, _, address), Client(address) as copy:
        with Client(address) as original:
            place = original.call(MayJoin(0, 5))
            assert place == Place(0, 0, 5)
            assert isinstance(copy.call(MayJoin(0, 8)), NotYet)  # It may still import Keras.
            original.call(Join(0, 0, place.ticket))
            original.call(commit(0, 1))
            assert isinstance(copy.call(MayJoin(0, 8)), NotYet)
        wait_until(lambda: isinstance(copy.call(MayJoin(0, 8)), Place))
        place = copy.call(MayJoin(0, 8))  # The same when the answer was lost.
        assert (place.epoch, place.step, place.left) == (0, 1, False)
        assert copy.call(Join(0, 1, place.ticket)).sequence == 1


def test_a_copy_waits_for_a_process_that_only_sends_heartbeats_yet():
    with serving() as (_, _, address), Client(address) as copy:
        with Client(address) as original:
            original.call(Beat(1, 3))
            assert isinstance(copy.call(MayJoin(1, 4)), NotYet)
            assert isinstance(copy.call(MayJoin(0, 4)), Place)
        wait_until(lambda: isinstance(copy.call(MayJoin(1, 4)), Place))


def test_a_copy_takes_the_place_of_a_process_that_hangs():
    with serving(heartbeat=0.2) as (_, _, address), Client(address) as copy, Client(address) as original:
        original.call(Join(0, 0, original.call(MayJoin(0, 5)).ticket))
        assert isinstance(copy.call(MayJoin(0, 8)), NotYet)
        wait_until(lambda: isinstance(copy.call(MayJoin(0, 8)), Place))
        for late in (commit(0, 1), Join(0, 0, 99)):  # It wakes up: whatever it asks, its place is taken.
            with pytest.raises(Replaced):
                original.call(late)
        with pytest.raises(Replaced):
            original.beat(Beat(0, 99), 1.0)


def test_an_older_process_may_follow_a_newer_one_under_a_larger_ticket():
    with serving() as (_, _, address), Client(address) as older:
        with Client(address) as newer:
            newer.call(Join(0, 0, newer.call(MayJoin(0, 8)).ticket))
            newer.call(commit(0, 1))
        wait_until(lambda: isinstance(older.call(MayJoin(0, 5)), Place))
        place = older.call(MayJoin(0, 5))
        assert place.ticket > 8
        assert older.call(Join(0, 0, place.ticket)).sequence == 1


def test_after_the_last_window_or_an_order_to_stop_nothing_is_left_to_train():
    with serving() as (_, _, address), Client(address) as copy:
        with Client(address) as original:
            original.call(Join(0))
            original.call(Leave(0))
        wait_until(lambda: isinstance(copy.call(MayJoin(0, 8)), Place))
        assert copy.call(MayJoin(0, 8)).left
        assert not copy.call(MayJoin(1, 8)).left
        copy.call(Order(NO_ORDERS._replace(stop=True)))
        assert copy.call(MayJoin(1, 8)).stopped


def test_a_waiting_process_learns_that_the_job_has_ended():
    with serving() as (server, _, address), Client(address) as client:
        client.call(MayJoin(0))
        server.stop("enough")
        with pytest.raises(JobStopped, match="enough"):
            client.call(MayJoin(0))


def test_a_restarted_server_gives_the_workers_that_it_expects_time_to_come_back():
    admission = Admission(10)
    known, copy = (Caller(lambda: None, name, lambda: None) for name in (b"known", b"copy"))
    for caller in (known, copy):
        admission.enter(caller)
    ask = {"worker": 0, "ticket": 9, "expected": True}
    assert admission.take_over(copy, **ask, heard=True) is None
    assert admission.admit(known, 0, Join(0, 0, 5)) is None  # It is back.
    assert admission.take_over(copy, **ask, heard=True) is None
    admission.leave(known)
    assert admission.take_over(copy, **ask, heard=True) == 9
    other = Admission(10)
    other.enter(copy)
    assert other.take_over(copy, **ask, heard=False) == 9  # Nobody came.


def test_an_unknown_worker_is_no_worker():
    with serving() as (server, _, _):
        caller = Caller(lambda: None, TOKEN, lambda: None)
        for worker in (-1, 2):
            with pytest.raises(ProtocolError):
                server._entrance.answer(caller, MayJoin(worker))


def test_an_elastic_training_begins_with_its_least_and_never_has_more_than_its_most():
    with serving(num_workers=8, elastic=Elastic(2, 2)) as (_, _, address), ExitStack() as stack:
        first, second, third = (stack.enter_context(Client(address)) for _ in range(3))
        assert first.call(MayJoin(0)).reason == "1 of 2 workers are there"
        assert isinstance(second.call(MayJoin(5)), Place)
        assert isinstance(first.call(MayJoin(0)), Place)
        assert third.call(MayJoin(2)).reason == "2 workers train, which is the maximum"
        second.end()  # Its executor is gone.
        wait_until(lambda: isinstance(third.call(MayJoin(2)), Place))


def test_a_share_that_rests_is_not_missed_and_goes_on_without_a_snapshot_before():
    with serving(num_workers=4, elastic=Elastic(1, 1), heartbeat=0.2) as (_, center, address):
        with Client(address) as client:
            client.call(Join(0, 0, client.call(MayJoin(0, 3)).ticket))
            client.call(commit(0, 1))
            client.call(Leave(0, rests=True))
        time.sleep(0.5)
        with Client(address) as client:
            wait_until(lambda: isinstance(client.call(MayJoin(0, 4)), Place))
            place = client.call(MayJoin(0, 4))
            assert (place.epoch, place.step, place.left, place.stopped) == (0, 1, True, False)
            assert client.call(Join(0, 0, place.ticket)).sequence == 1
            events = client.call(Poll()).events
    assert [type(event) for event in events] == [WorkerJoined, Window, WorkerLeft, WorkerJoined]
    assert events[2].rests
    assert center.num_updates == 1
