"""Held answers, written centers and reports over real connections, with one server and with two."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from serving import serving
from test_group import group_of

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.center.answers import Done, Exchanged, Joined, Pulled, Refused, Rejoin
from distkeras.center.orders import FOREVER, Orders
from distkeras.center.requests import MAX_PART, Exchange, Join, Keep, Leave, Order, Poll, Pull, Write
from distkeras.events import EpochEnded, WorkerLost
from distkeras.wire.client import JobStopped, Replaced
from distkeras.wire.group import connect
from distkeras.wire.reports import fetch_report, send_report
from distkeras.wire.snapshot_writer import SnapshotWriter
from distkeras.wire.store import SnapshotOptions, Store

SIZE = 4000


def commit(worker, sequence, samples=5, value=1.0, size=SIZE):
    states = np.array([samples, 1.0], "<f8").tobytes()
    message = np.full(size, value, np.float32)
    return Exchange(worker, sequence, 2, samples, 0, 2 * sequence, message, {"loss": 0.5}, states=states)


class Asking(threading.Thread):
    """A call under way."""

    def __init__(self, client, request):
        super().__init__(daemon=True)
        self.client, self.request, self.reply = client, request, None
        self.start()

    def run(self):
        try:
            self.reply = self.client.call(self.request)
        except JobStopped as stopped:
            self.reply = stopped

    def check_waits(self):
        self.join(0.3)
        assert self.is_alive()

    def answer(self):
        self.join(20)
        assert not self.is_alive()
        return self.reply


@contextmanager
def job(num_servers=1, algorithm=None, num_workers=2, **options):
    """Yield the servers, a client for the driver, and one for each worker."""
    options = {"epoch_rows": 10, "until": 10, "algorithm": algorithm, **options}
    if num_servers == 1:
        running = serving(num_workers=num_workers, size=SIZE, **options)
    else:
        running = group_of(num_servers, **options)
    with running as (servers, centers, addresses), ExitStack() as stack:
        every = (addresses,) if num_servers == 1 else addresses
        clients = [stack.enter_context(connect(every)) for _ in range(1 + num_workers)]
        for worker, client in enumerate(clients[1:]):
            client.call(Join(worker))
        yield servers, centers, clients


@pytest.mark.parametrize("num_servers", [1, 2])
def test_the_driver_decides_at_a_boundary_while_the_workers_wait(num_servers):
    with job(num_servers) as (_, _, (driver, *workers)):
        driver.call(Keep(10))
        first = Asking(workers[0], commit(0, 1))
        assert isinstance(first.answer(), Exchanged)
        waiting = [Asking(workers[1], commit(1, 1)), Asking(workers[0], commit(0, 2))]
        for asking in waiting:
            asking.check_waits()
        events = driver.call(Poll(0)).events
        (epoch,) = [event for event in events if isinstance(event, EpochEnded)]
        assert (epoch.epoch, epoch.samples, np.frombuffer(epoch.states, "<f8").tolist()) == (0, 10, [10, 2])
        kept = driver.call(Pull(kept=10))
        assert isinstance(kept, Pulled)
        assert kept.center.tolist() == [2.0] * SIZE
        assert driver.call(Order(Orders(learning_rate=0.5, until=30))) == Done()
        for asking in waiting:
            reply = asking.answer()
            assert (type(reply), reply.orders) == (Exchanged, Orders(1, learning_rate=0.5, until=30))
        for sequence, worker in ((2, 1), (3, 0)):
            assert isinstance(workers[worker].call(commit(worker, sequence)), Exchanged)
        for worker, client in enumerate(workers):
            assert client.call(Leave(worker)) == Done()
        assert driver.call(Pull()).center.tolist() == [5.0] * SIZE


def test_a_snapshot_of_a_held_center_is_there_when_the_driver_decides(tmp_path):
    options = SnapshotOptions(str(tmp_path), seconds=None, commits=10**6)
    with job(num_workers=1) as (server, center, (driver, worker)):
        store = Store(str(tmp_path))
        server._snapshots = writer = SnapshotWriter(center, store, options, {})
        writer.start()
        asking = Asking(worker, commit(0, 1, samples=10))
        found = None
        while found is None or not found.members[0].counts["commits"]:
            asking.check_waits()
            found = store.newest()
        assert found.members[0].counts["samples"] == 10
        driver.call(Order(Orders(until=20)))
        assert isinstance(asking.answer(), Exchanged)
        assert len(list(tmp_path.glob("*.npz"))) == 1  # The order has written no other.
        writer.close()


def test_two_servers_copy_the_center_that_is_wanted_while_all_workers_wait():
    with job(2, LocalSGD()) as (_, _, (driver, *workers)):
        waiting = [Asking(client, commit(worker, 1)) for worker, client in enumerate(workers)]
        for asking in waiting:
            asking.check_waits()
        driver.call(Keep(10))
        for _ in range(3):
            assert driver.call(Pull(kept=10)).center.tolist() == [1.0] * SIZE
        assert isinstance(driver.call(Pull(kept=20)), Refused)
        driver.call(Order(Orders(until=FOREVER)))
        for asking in waiting:
            assert isinstance(asking.answer(), Exchanged)


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_written_center_reaches_every_worker_and_all_servers(num_servers):
    written = np.linspace(0, 1, SIZE, dtype=np.float32)
    with job(num_servers, LocalSGD()) as (_, _, (driver, *workers)):
        assert isinstance(driver.call(Write(written)), Refused)
        waiting = [Asking(client, commit(worker, 1)) for worker, client in enumerate(workers)]
        for asking in waiting:
            asking.check_waits()
        bad = written.copy()
        bad[-1] = np.nan
        assert "NaN" in driver.call(Write(bad)).reason
        assert driver.call(Pull()).center.tolist() == [1.0] * SIZE
        for _ in range(2):  # Sent again, after a lost reply.
            assert driver.call(Write(written.copy())) == Done()
        driver.call(Order(Orders(until=100)))
        assert [asking.answer() for asking in waiting] == [Rejoin()] * 2
        for worker, client in enumerate(workers):
            joined = client.call(Join(worker))
            assert joined.sequence == 1
            np.testing.assert_array_equal(joined.center, written)
        for asking in [Asking(client, commit(worker, 2)) for worker, client in enumerate(workers)]:
            assert isinstance(asking.answer(), Exchanged)
        np.testing.assert_allclose(driver.call(Pull()).center, written + 1)


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_process_that_replaces_a_waiting_one_waits_and_takes_what_was_written(num_servers):
    with job(num_servers, num_workers=2) as (_, _, (driver, *workers)), ExitStack() as stack:
        first = [Asking(workers[worker], commit(worker, 1, 10)) for worker in (0, 1)]
        for asking in first:
            asking.check_waits()
        again = stack.enter_context(connect(driver.addresses))
        joining = Asking(again, Join(0, 1, ticket=1))
        joining.check_waits()
        assert driver.call(Write(np.full(SIZE, 7, np.float32))) == Done()
        driver.call(Order(Orders(until=FOREVER)))
        joined = joining.answer()
        assert (type(joined), joined.sequence, joined.orders.until) == (Joined, 1, FOREVER)
        assert joined.center.tolist() == [7.0] * SIZE
        assert isinstance(first[0].answer(), Replaced)
        assert first[1].answer() == Rejoin()
        assert isinstance(again.call(commit(0, 2)), Exchanged)


def test_a_worker_that_waits_is_not_lost_and_a_cut_connection_gets_the_answer_later():
    with job(heartbeat=0.3) as (_, _, (driver, *workers)):
        workers[1].call(Leave(1))
        asking = Asking(workers[0], commit(0, 1, 10))
        asking.join(1.0)
        workers[0]._connection.hang_up()
        asking.check_waits()
        assert not any(isinstance(event, WorkerLost) for event in driver.call(Poll(0)).events)
        driver.call(Order(Orders(until=20)))
        reply = asking.answer()
        assert (reply.restart, reply.reply.tolist()) == (False, [1.0] * SIZE)


def test_answers_that_are_held_leave_the_servers_memory_to_others():
    """There is room for one vector on its way: two workers and the driver need it after one another."""
    with job(algorithm=DOWNPOUR(), staging=1) as (_, _, (driver, *workers)):
        waiting = [Asking(client, commit(worker, 1, 10)) for worker, client in enumerate(workers)]
        for asking in waiting:
            asking.check_waits()
        assert driver.call(Pull()).center.tolist() == [2.0] * SIZE
        driver.call(Order(Orders(until=FOREVER)))
        assert [asking.answer().reply[0] for asking in waiting] in ([1.0, 2.0], [2.0, 1.0])


@pytest.mark.parametrize("num_servers", [1, 2])
def test_reports_arrive_whole_and_are_fetched_by_the_driver_and_by_a_replacement(num_servers):
    data = np.random.default_rng(0).bytes(2 * MAX_PART + 7)
    with job(num_servers) as (_, _, (driver, *workers)), ExitStack() as stack:
        assert send_report(workers[0], 0, "state", 1, data) == Done()
        assert fetch_report(driver, 0, "state", 1) is None
        workers[0].call(commit(0, 1))
        assert fetch_report(driver, 0, "state", 1) == data
        again = stack.enter_context(connect(driver.addresses))
        assert again.call(Join(0, 1, ticket=1)).sequence == 1
        assert fetch_report(again, 0, "state", 1) == data
        assert send_report(again, 0, "evaluation", 10, b"result") == Done()
        assert fetch_report(driver, 0, "evaluation", 10) == b"result"


def test_of_two_processes_as_one_worker_only_the_one_that_joined_may_report():
    with job() as (_, _, (driver, *workers)), ExitStack() as stack:
        stranger = stack.enter_context(connect(driver.addresses))
        assert send_report(stranger, 0, "state", 1, b"strange") == Rejoin()
        assert send_report(workers[0], 0, "state", 1, b"own") == Done()
        workers[0].call(commit(0, 1))
        assert fetch_report(driver, 0, "state", 1) == b"own"
