"""A driver that is killed leaves snapshots, no process, and nothing half done; another goes on from them."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import bare
import psutil
import pytest

from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import find_interrupted
from distkeras.cluster.watch import WorkerError
from distkeras.events import ServerRestored
from distkeras.wire.store import SnapshotOptions


def test_another_driver_goes_on_where_a_killed_one_was(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path), commits=5), patience=1.0)
    driver = subprocess.Popen([sys.executable, bare.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    driver.stdin.write(pickle.dumps(options))
    driver.stdin.close()
    server = psutil.Process(int(driver.stdout.readline()))
    children = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stdout.close()
    assert server in children
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz", ".npz"]

    interrupted = find_interrupted(options, resume=True)
    job = bare.run(options=options, resume=interrupted.next)
    assert job.center.tolist() == [120.0] * bare.SIZE
    (restored,) = [event for event in job.events if isinstance(event, ServerRestored)]
    assert sum(restored.commits) >= 15
    assert restored.num_updates == sum(restored.commits)
    assert job.num_updates == 60
    for worker in (0, 1):
        iterations = [window.iteration for window in job.history if window.worker == worker]
        assert iterations == list(range(restored.commits[worker], 30))

    # It has ended: a new one may begin there.
    assert find_interrupted(options, resume=False) is None
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_has_ended_goes_on_for_more_epochs(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))
    bare.check(bare.run(options=options, num_batches=4, num_epoch=1), 8)
    job = bare.run(
        options=options, num_batches=4, num_epoch=3, resume=find_interrupted(options, resume=True).next
    )
    assert job.center.tolist() == [24.0] * bare.SIZE
    assert sum(window.steps for window in job.history) == 16
    assert job.num_updates == 12


def test_snapshots_of_a_training_that_did_not_end_are_not_written_over(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path)))

    def fault(job):
        job.wait_for_windows(10)
        job.server.stop("enough")

    with pytest.raises(WorkerError, match="had not finished"):
        bare.run(fault, options=options)
    (snapshot,) = tmp_path.iterdir()  # Written as the server ended.
    with pytest.raises(ValueError, match="did not end"):
        find_interrupted(options, resume=False)
    assert list(tmp_path.iterdir()) == [snapshot]


def test_resuming_needs_an_address():
    for snapshots in (None, SnapshotOptions()):
        with pytest.raises(ValueError, match="Expected an address for snapshots to resume from"):
            find_interrupted(ServerOptions(snapshots=snapshots), resume=True)
        assert find_interrupted(ServerOptions(snapshots=snapshots), resume=False) is None


def test_there_is_nothing_to_resume_before_the_first_snapshot(tmp_path):
    options = ServerOptions(snapshots=SnapshotOptions(str(tmp_path / "new")))
    assert find_interrupted(options, resume=True) is None
