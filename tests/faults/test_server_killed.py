"""A server that is killed is started again; nothing is lost or counted twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import bare
import pytest

from distkeras.algorithms import DOWNPOUR, LocalSGD
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerFailed
from distkeras.events import ServerRestored
from distkeras.record import replay
from distkeras.runs.rollup import Rollup
from distkeras.wire.store import SnapshotOptions


def kill_server(job, windows):
    job.wait_for_windows(windows)
    snapshots = job.server._job.snapshots
    while snapshots is not None and snapshots.commits and not any(Path(snapshots.address).glob("*.npz")):
        time.sleep(0.01)
    job.server._process.kill()


@pytest.mark.parametrize("snapshots", [SnapshotOptions(), SnapshotOptions(commits=7)], ids=["none", "some"])
def test_a_killed_server_goes_on_from_its_last_snapshot(snapshots, tmp_path):
    options = ServerOptions(snapshots=snapshots, record=str(tmp_path / "record"))
    job = bare.run(lambda job: kill_server(job, 20), options=options)
    bare.check(job, 2 * 30 * 2)
    replayed = replay(str(tmp_path / "record"))
    assert replayed.center.tobytes() == job.center.tobytes()
    assert replayed.num_updates == job.num_updates
    (restored,) = [event for event in job.events if isinstance(event, ServerRestored)]
    assert (sum(restored.commits) > 0) == (snapshots.commits is not None)
    assert job.num_updates == len(job.history)
    rollup = Rollup()
    for event in job.events:
        rollup.add(event)
    rows = sum(window.samples for window in job.history)
    assert (rollup.totals.updates, rollup.totals.samples) == (job.num_updates, rows)
    assert rollup.totals.windows == len(job.history)
    assert not Path(job.server._folder).exists()


@pytest.mark.parametrize("index", [0, 1])
def test_one_of_two_killed_servers_goes_on_from_its_last_snapshot(tmp_path, index):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path), commits=7))

    def fault(job):
        job.wait_for_windows(20)
        job.servers.processes[index]._process.kill()

    job = bare.run(fault, options=options, num_servers=2)
    bare.check(job, 2 * 30 * 2)
    assert job.num_updates == len(job.history) == 60
    restored = [event for event in job.events if isinstance(event, ServerRestored)]
    assert len(restored) == (1 if index == 0 else 0)  # The history follows the first server.


def test_a_quorum_over_two_servers_outlives_both_of_them(tmp_path):
    options = ServerOptions(
        snapshots=SnapshotOptions(str(tmp_path / "kept"), commits=3), record=str(tmp_path / "record")
    )

    def fault(job):
        for index in (1, 0):
            job.wait_for_windows(len(job.history) + 15)
            job.servers.processes[index]._process.kill()

    rule = LocalSGD(communication_window=2)
    job = bare.run(fault, algorithm=rule, options=options, num_servers=2, quorum=1, grace=0.005)
    for worker in (0, 1):
        iterations = [window.iteration for window in job.history if window.worker == worker]
        assert iterations == list(range(30))
    replayed = replay(str(tmp_path / "record"))
    assert replayed.center.tobytes() == job.center.tobytes()


def test_a_killed_server_of_a_synchronous_rule_goes_on(tmp_path):
    # The mean of workers that each add one a minibatch counts the minibatches of one worker.
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path), commits=3), record=str(tmp_path))
    job = bare.run(
        lambda job: kill_server(job, 20), algorithm=LocalSGD(communication_window=2), options=options
    )
    assert job.center.tolist() == [60.0] * bare.SIZE
    assert replay(str(tmp_path)).center.tobytes() == job.center.tobytes()
    assert sum(window.steps for window in job.history) == 120
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_a_server_that_is_killed_as_the_last_worker_leaves_has_its_windows():
    def fault(job):
        job.wait_for_windows(60)
        while len(job.workers.processes) > 1:  # One has left for good: nobody can train its windows again.
            pass
        job.server._process.kill()

    job = bare.run(fault, ends_before=False)
    bare.check(job, 2 * 30 * 2)


def test_a_server_that_is_killed_too_often_ends_the_job_with_an_error():
    options = ServerOptions(restarts=1)

    def fault(job):
        kill_server(job, 5)
        while not any(isinstance(event, ServerRestored) for event in job.events):
            time.sleep(0.01)
        job.server._process.kill()

    with pytest.raises(ServerFailed, match="killed by signal 9"):
        bare.run(fault, options=options, num_batches=200)


def test_without_snapshots_a_killed_server_ends_the_job_with_an_error():
    with pytest.raises(ServerFailed, match="killed by signal 9"):
        bare.run(
            lambda job: kill_server(job, 5),
            options=ServerOptions(snapshots=None),
            num_batches=200,
            algorithm=DOWNPOUR(communication_window=1),
        )


def test_a_server_that_stands_still_for_a_while_is_waited_for():
    def fault(job):
        job.wait_for_windows(10)
        os.kill(job.server._process.pid, signal.SIGSTOP)
        time.sleep(2)
        os.kill(job.server._process.pid, signal.SIGCONT)

    job = bare.run(fault)
    bare.check(job, 2 * 30 * 2)
