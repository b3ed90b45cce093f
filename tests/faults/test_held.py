"""The workers wait at boundaries for the driver; processes that are killed meanwhile change nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import bare
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.center import CenterConfig
from distkeras.center.answers import Done, Refused
from distkeras.center.orders import FOREVER, Orders
from distkeras.center.requests import Exchange, Join, Order, Pull, Write
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import find_interrupted
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.cluster.watch import WorkerError
from distkeras.events import EpochEnded, ServerRestored, WorkerJoined
from distkeras.wire.client import Client
from distkeras.wire.store import SnapshotOptions

ROWS = 20
"""Rows of an epoch: 5 rounds of two workers, or 10 windows of one; the center has 10 or 20 more after it."""
EPOCHS = 4


def within(seconds, found):
    """Wait until `found` returns something, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > deadline:
            raise TimeoutError("The job has not come that far.")
        time.sleep(0.005)
    return value


def wait_for_epoch(job, epoch):
    """Wait until the center has told of the end of `epoch`, since its server's last start."""

    def found():
        events = list(job.events)
        starts = [index for index, event in enumerate(events) if isinstance(event, ServerRestored)]
        since = events[starts[-1] :] if starts else events
        return [event for event in since if isinstance(event, EpochEnded) and event.epoch == epoch][-1:]

    (ended,) = within(60, found)
    return ended


def kill(job, index):
    """Kill a server, and wait until another process is in its place."""
    server = job.servers.processes[index]
    left = server._restarts_left
    server._process.kill()
    within(30, lambda: server._restarts_left < left)
    if index == 0:
        within(30, lambda: any(isinstance(event, ServerRestored) for event in list(job.events)))


def center_of(job):
    return job.watch.ask(Pull()).center.copy()


def held_at(job, value):
    """Wait until the whole center has this value, and see that it keeps it: nobody trains."""
    within(30, lambda: (center_of(job) == value).all())
    time.sleep(0.1)
    assert center_of(job).tolist() == [value] * bare.SIZE


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_server_and_workers_killed_while_they_are_held_change_nothing(num_servers, tmp_path):
    written = np.linspace(0, 1, bare.SIZE, dtype=np.float32)

    def fault(job):
        for epoch in range(EPOCHS - 1):
            ended = wait_for_epoch(job, epoch)
            assert (ended.samples, ended.windows, ended.steps) == (20 * (epoch + 1), 10, 20)
            held_at(job, 10.0 * (epoch + 1))
            if epoch == 0:
                job.workers.processes[1].kill()
                within(30, lambda: any(isinstance(e, WorkerJoined) and e.attempt for e in list(job.events)))
            elif epoch <= num_servers:  # The second of two, and at the next boundary the first.
                kill(job, num_servers - epoch)
                wait_for_epoch(job, epoch)
            held_at(job, 10.0 * (epoch + 1))
            if epoch == 2:
                assert job.watch.ask(Write(written.copy())) == Done()
                kill(job, num_servers - 1)
                within(30, lambda: center_of(job).tolist() == written.tolist())
            job.watch.order(until=FOREVER if epoch == EPOCHS - 2 else ROWS * (epoch + 2))

    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path), commits=3))
    job = bare.run(
        fault,
        algorithm=LocalSGD(communication_window=2),
        options=options,
        num_servers=num_servers,
        num_batches=10,
        num_epoch=EPOCHS,
        epoch_rows=ROWS,
        until=ROWS,
    )
    np.testing.assert_allclose(job.center, written + 10, rtol=1e-6)
    ends = [event for event in job.events if isinstance(event, EpochEnded)]
    assert sorted({event.epoch for event in ends}) == list(range(EPOCHS))
    assert {event.states for event in ends} == {b""}


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_new_driver_goes_on_where_the_last_one_had_not_decided(num_servers, tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))
    decided = {"algorithm": DOWNPOUR(communication_window=2), "num_workers": 1, "num_batches": ROWS}
    decided |= {"num_epoch": 3, "epoch_rows": ROWS, "until": ROWS, "options": options}
    decided |= {"num_servers": num_servers}

    def die(job):
        wait_for_epoch(job, 0)
        job.watch.order(until=2 * ROWS)
        wait_for_epoch(job, 1)
        job.servers.stop("enough")

    with pytest.raises(WorkerError, match="had not finished"):
        bare.run(die, **decided)

    def resume(job):
        ended = within(60, lambda: [each for each in list(job.events) if isinstance(each, EpochEnded)])
        assert [event.epoch for event in ended] == [1]
        within(30, lambda: any(isinstance(event, WorkerJoined) for event in list(job.events)))
        held_at(job, 2.0 * ROWS)
        assert not isinstance(job.watch.ask(Write(np.zeros(bare.SIZE, np.float32))), Refused)
        job.watch.order(until=FOREVER)

    job = bare.run(resume, **decided, resume=find_interrupted(options, resume=True).next)
    assert job.center.tolist() == [float(ROWS)] * bare.SIZE
    assert sum(window.steps for window in job.history) == ROWS


def test_a_server_that_restarts_remembers_what_the_driver_has_decided_about(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path), seconds=3600.0))
    config = CenterConfig(DOWNPOUR(), 1, epoch_rows=10, until=10)
    ones = np.ones(4, np.float32)
    with (
        ServerProcess(ServerSetup(config, options=options), np.zeros(4, np.float32)) as server,
        Client(server.address, patience=30.0) as worker,
        Client(server.address, patience=30.0) as driver,
        ThreadPoolExecutor(1) as pool,
    ):
        worker.call(Join(0))
        held = pool.submit(worker.call, Exchange(0, 1, 1, 10, 1, 0, ones))
        within(30, lambda: driver.call(Pull()).num_updates == 1)
        assert driver.call(Order(Orders(learning_rate=0.5, until=20))) == Done()
        assert held.result(30).orders == Orders(1, learning_rate=0.5, until=20)
        server._process.kill()
        assert server.revive(0, seconds=30.0)
        assert driver.call(Pull()).center.tolist() == ones.tolist()
