"""Fragments between real processes: killed workers and servers lose nothing, and nothing counts twice."""

from __future__ import annotations

import bare
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, StreamingDiLoCo
from distkeras.center import Fragments
from distkeras.cluster.options import ServerOptions
from distkeras.events import ServerRestored, WorkerJoined
from distkeras.record import replay
from distkeras.wire.store import SnapshotOptions

PARTS = Fragments((((0, 20), (40, 64)), ((20, 40),)))


def kill_both(job):
    job.wait_for_windows(12)
    job.workers.processes[1].kill()
    job.wait_for_windows(24)
    job.server._process.kill()


@pytest.mark.parametrize(
    ("rule", "late"),
    [(DOWNPOUR(6), 0), (StreamingDiLoCo(6, 1.0, 0.0, fragments=2), 1)],
    ids=["asynchronous", "synchronous, late"],
)
def test_killed_workers_and_servers_lose_no_part_of_a_fragment(rule, late, tmp_path):
    record = str(tmp_path / "record")
    options = ServerOptions(snapshots=SnapshotOptions(commits=5), record=record)
    job = bare.run(kill_both, algorithm=rule, options=options, overlap=late, fragments=PARTS)
    assert sum(window.steps for window in job.history) == 2 * 30 * 2
    for worker in range(2):
        iterations = [window.iteration for window in job.history if window.worker == worker]
        assert iterations == list(range(len(iterations)))
    assert [event.attempt for event in job.events if isinstance(event, WorkerJoined)].count(1) >= 1
    assert any(isinstance(event, ServerRestored) for event in job.events)
    np.testing.assert_array_equal(replay(record).center, job.center)
    if not rule.synchronous:
        assert job.center.tolist() == [120.0] * bare.SIZE
