"""A server closes a round when the grace after its quorum is over, whoever is gone or late by then."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from serving import commit, serving
from test_group import group_of

from distkeras.algorithms import LocalSGD
from distkeras.center.answers import Refused
from distkeras.center.requests import Join, Leave, Poll
from distkeras.events import WorkerFailed
from distkeras.wire import shared_memory
from distkeras.wire.client import Client
from distkeras.wire.group import Group


@pytest.fixture(autouse=True, params=["tcp", "shared memory"] if shared_memory.AVAILABLE else ["tcp"])
def transport(request, monkeypatch):
    """Every test of this file runs over every transport."""
    monkeypatch.setattr("serving.TRANSPORT", request.param)


@dataclass(frozen=True)
class Failing(LocalSGD):
    def apply(self, center, message, commit, state):
        raise KeyError("planted")


def test_a_round_ends_with_its_grace_though_a_worker_was_killed_in_it():
    with serving(LocalSGD(), 3, quorum=2, grace=0.05) as (_, center, address), ExitStack() as stack:
        workers = [stack.enter_context(Client(address)) for _ in range(3)]
        for worker, client in enumerate(workers):
            client.call(Join(worker))
        workers[2]._connection.send(commit(2, 1, 100.0))
        workers[2].close()
        workers[2].call(Join(2, 1))  # Its replacement takes the message back.
        replies = {}

        def send(worker, value):
            replies[worker] = workers[worker].call(commit(worker, 1, value)).reply.tolist()

        threads = [threading.Thread(target=send, args=(worker, worker + 1.0)) for worker in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert replies == {0: [1.5] * 4, 1: [1.5] * 4}
        assert center.num_updates == 1
        for worker in range(2):
            workers[worker].call(Leave(worker))
        assert workers[2].call(commit(2, 1, 3.0)).reply.tolist() == [4.5] * 4


def test_an_error_after_a_grace_reaches_the_driver_and_the_workers_that_wait():
    with (
        serving(Failing(), quorum=1, grace=0.05) as (_, _, address),
        Client(address) as worker,
        Client(address) as driver,
    ):
        worker.call(Join(0))
        assert isinstance(worker.call(commit(0, 1)), Refused)
        (failed,) = [event for event in driver.call(Poll()).events if isinstance(event, WorkerFailed)]
        assert "the end of a round's grace" in failed.error
        assert "planted" in failed.error


def test_a_grace_that_is_over_at_the_first_server_ends_the_round_at_all():
    with group_of(3, LocalSGD(), 12, quorum=1, grace=0.05) as (_, centers, addresses), ExitStack() as stack:
        workers = [stack.enter_context(Group(addresses, patience=20.0)) for _ in range(2)]
        for worker, client in enumerate(workers):
            client.call(Join(worker))
        assert workers[0].call(commit(0, 1, 2.0, 12)).reply.tolist() == [2.0] * 12
        assert [center.num_updates for center in centers] == [1] * 3
        workers[0].call(Leave(0))
        assert workers[1].call(commit(1, 1, 3.0, 12)).reply.tolist() == [5.0] * 12
