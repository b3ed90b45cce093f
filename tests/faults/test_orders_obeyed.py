"""The driver's orders reach all workers within a window, and replaced ones and restarted servers too."""

from __future__ import annotations

import time

import bare
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.answers import Pulled, Refused
from distkeras.center.orders import Orders
from distkeras.center.requests import Exchange, Join, Keep, Leave, Order, Poll, Pull
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.cluster.watch import Watch
from distkeras.events import CenterKept, WorkerJoined, WorkerLeft
from distkeras.record import replay
from distkeras.record.entries import records_in
from distkeras.wire.client import Client
from distkeras.wire.group import connect
from distkeras.wire.store import SnapshotOptions


def rates_in(folder, job):
    """Replay the first server's record, and return the rate of each window in it, by worker, in order."""
    rates = {0: [], 1: []}

    def note(step, _):
        request = step.request
        if isinstance(request, Exchange):
            rates[request.worker].append(float(request.message[0]) / request.num_steps)

    replayed = replay(records_in(str(folder))[0], on_step=note)
    assert replayed.center.tobytes() == job.center[: replayed.center.size].tobytes()
    return rates


def check_stopped(job):
    """All workers have left, long before the end of their data, and each window counts once."""
    assert sum(isinstance(event, WorkerLeft) for event in job.events) == 2
    assert len(job.history) == job.num_updates < 2 * 2000 / 2
    assert len({(window.worker, window.iteration) for window in job.history}) == len(job.history)


def test_a_rate_and_then_a_stop_reach_the_workers_of_two_servers_and_a_replacement(tmp_path):
    def fault(job):
        for worker in (0, 1):
            job.wait_for_windows(5, worker)
        job.watch.order(learning_rate=0.25)
        job.wait_for_windows(len(job.history) + 20)
        job.workers.processes[0].kill()
        job.wait_for_windows(sum(window.worker == 0 for window in job.history) + 5, 0)
        job.watch.order(stop=True)

    options = ServerOptions(record=str(tmp_path))
    job = bare.run(fault, num_batches=2000, num_epoch=1, options=options, num_servers=2)
    check_stopped(job)
    assert any(isinstance(event, WorkerJoined) and event.attempt == 1 for event in job.events)
    for rates in rates_in(tmp_path, job).values():
        assert rates == sorted(rates, reverse=True)  # Nobody went back to the first rate.
        assert set(rates) == {1.0, 0.25}


def test_a_server_that_forgot_the_orders_gets_them_again():
    def fault(job):
        job.wait_for_windows(10)
        job.watch.order(learning_rate=0.25, window=3)
        while not any(window.steps == 3 for window in job.history):
            job.wait_for_windows(len(job.history) + 1)
        job.server._process.kill()  # Without a snapshot: it begins at the start, and so do the workers.
        while len(job.history) > 10:
            job.wait_for_windows(0)
        job.wait_for_windows(5, 1)
        job.workers.processes[1].kill()
        job.wait_for_windows(sum(window.worker == 1 for window in job.history) + 5, 1)
        job.watch.order(stop=True)

    options = ServerOptions(snapshots=SnapshotOptions())
    job = bare.run(fault, num_batches=2000, num_epoch=1, options=options)
    check_stopped(job)
    joined = [event for event in job.events if isinstance(event, WorkerJoined) and event.attempt]
    assert joined
    last = [window for window in job.history if window.worker == 1][-5:]
    assert [window.steps for window in last] == [3] * 5


def test_a_stop_outlives_the_servers_process_but_not_its_training(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))
    setup, initial = ServerSetup(CenterConfig(DOWNPOUR(), 2), options=options), np.zeros(4, np.float32)
    with ServerProcess(setup, initial) as server, Client(server.address, patience=30.0) as client:
        client.call(Join(0))
        client.call(Order(Orders(stop=True, learning_rate=0.25, evaluate=3, send_optimizer=8)))
        client.call(Leave(0))  # The server answers when it has written a snapshot.
        for _ in range(2):
            server._process.kill()
            assert server.revive(0, seconds=30.0)
            assert client.call(Join(1)).orders == Orders(1, True, learning_rate=0.25, send_optimizer=8)
    with ServerProcess(setup, initial, resume=0) as server, Client(server.address, patience=30.0) as client:
        assert client.call(Join(1)).orders == Orders(2, learning_rate=0.25)
        client.call(Order(Orders(stop=True)))
        client.call(Leave(1))
        server._process.kill()
        assert server.revive(0, seconds=30.0)
        assert client.call(Join(0)).orders == Orders(3, True, learning_rate=0.25)


def test_a_copy_whose_part_a_killed_server_has_lost_is_made_again():
    copies = []

    def fault(job):
        def wait_for_copies(count):
            while sum(isinstance(event, CenterKept) for event in job.events) < count:
                job.wait_for_windows(len(job.history))
                time.sleep(0.01)

        job.wait_for_windows(1)
        job.watch.keep(20)
        wait_for_copies(1)
        for killed in (1, 0):  # The follower, then the leader.
            job.servers.processes[killed]._process.kill()
            wait_for_copies(len(copies) + 2)
            with connect(job.servers.addresses) as client:
                while isinstance(pulled := client.call(Pull(kept=20)), Refused):
                    time.sleep(0.01)  # The follower handles that message a moment later.
                copies.append(pulled.center.copy())
        job.watch.order(stop=True)

    options = ServerOptions(snapshots=SnapshotOptions(commits=1))
    check_stopped(bare.run(fault, num_batches=2000, num_epoch=1, options=options, num_servers=2))
    assert [copy.min() > 0 for copy in copies] == [True, True]


def test_what_the_driver_wants_kept_is_asked_again_until_it_has_been_pulled():
    asked, died = [], []

    class Server:
        def revive(self, since, seconds):
            return bool(died) and died.pop()

    class Connection:
        def call(self, request):
            asked.append(request)
            return Pulled(np.zeros(1, np.float32), 1)

        def close(self):
            asked.clear()

    watch = Watch(None, Server(), Connection(), 1, print)
    for samples in (20, 30):
        watch.keep(samples)
    assert asked == [Keep(20), Keep(30)]
    watch.ask(Pull(kept=20))
    died.append(True)
    watch.ask(Pull())
    watch.ask(Poll(0))
    assert asked == [Pull(), Keep(30), Poll(0)]
    with pytest.raises(ValueError, match="samples=0"):
        watch.keep(0)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"rate": 0.1}, r"Expected some of .*Received: rate"),
        ({"number": 7}, r"Expected some of .*Received: number"),
        ({"window": 0}, "`window` must be an integer of at least 1"),
    ],
)
def test_an_order_that_does_not_exist_or_is_senseless_is_refused_at_once(changes, error):
    with pytest.raises((TypeError, ValueError), match=error):
        Watch(None, None, None, 1, print).order(**changes)
