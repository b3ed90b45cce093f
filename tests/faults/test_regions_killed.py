"""Servers in two levels between real processes: killed workers and servers lose nothing."""

from __future__ import annotations

import bare
import pytest

from distkeras.algorithms import DOWNPOUR, HALoS
from distkeras.center import RegionServers
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerFailed
from distkeras.events import ServerRestored, WorkerJoined
from distkeras.wire.store import SnapshotOptions

REGIONS = RegionServers(2, DOWNPOUR(3))
"""Under this rule the global center counts the minibatches that regions have sent it."""


def test_a_killed_worker_of_a_region_is_replaced_and_its_rows_count_once():
    def kill(job):
        job.wait_for_windows(12)
        job.workers.processes[1].kill()

    job = bare.run(kill, num_workers=4, num_epoch=1, regions=REGIONS)
    bare.check(job, 4 * 30, num_workers=4)
    assert job.num_updates == len(job.history)
    joined = [event.worker for event in job.events if isinstance(event, WorkerJoined) and event.attempt]
    assert joined == [1]


@pytest.mark.parametrize("snapshots", [SnapshotOptions(), SnapshotOptions(commits=7)], ids=["none", "some"])
def test_the_killed_process_of_all_servers_goes_on_from_its_last_snapshot(snapshots):
    def kill(job):
        job.wait_for_windows(25)
        job.server._process.kill()

    options = ServerOptions(snapshots=snapshots)
    job = bare.run(kill, num_workers=4, num_epoch=1, regions=REGIONS, options=options)
    bare.check(job, 4 * 30, num_workers=4)
    assert [event for event in job.events if isinstance(event, ServerRestored)]
    assert job.num_updates == len(job.history)


def test_what_the_global_server_cannot_take_ends_the_job_and_says_of_which_region():
    regions = RegionServers(2, HALoS(2, outer_learning_rate=3e38))
    with pytest.raises(ServerFailed, match=r"The global server has refused what region [01] sent"):
        bare.run(num_workers=2, regions=regions)
