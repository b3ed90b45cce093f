"""A rule that makes the center infinite of finite messages: the server goes back, or the job ends."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bare
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR
from distkeras.center import BadUpdates
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerFailed
from distkeras.events import ServerRestored
from distkeras.wire.store import SnapshotOptions, Store


@dataclass(frozen=True)
class Bursting(DOWNPOUR):
    """Overflows once it has counted to 30, as often as `folder` has no file yet for it."""

    folder: str = ""
    times: int = 1

    def apply(self, center, message, commit, state):
        reply = super().apply(center, message, commit, state)
        done = len(list(Path(self.folder).iterdir()))
        if center[0] > 30 and done < self.times:
            Path(self.folder, str(done)).touch()
            center *= np.float32(1e38)
        return reply


def run(tmp_path, **options):
    folder = tmp_path / "bursts"
    folder.mkdir()
    rule = Bursting(2, str(folder), options.pop("times", 1))
    snapshots = SnapshotOptions(str(tmp_path / "run"), commits=3, keep=100)
    return bare.run(
        algorithm=rule,
        bad_updates=BadUpdates("skip"),
        options=ServerOptions(snapshots=snapshots, **options),
    )


def test_the_server_goes_back_to_its_last_finite_snapshot_and_no_window_is_lost_or_doubled(tmp_path, caplog):
    job = run(tmp_path)
    bare.check(job, 120)
    assert len([event for event in job.events if isinstance(event, ServerRestored)]) == 1
    assert "The center restarts from its last snapshot: after a finite message" in caplog.text
    store = Store(str(tmp_path / "run"))
    for name in store._names():
        Path(name).rename(tmp_path / "run" / "snapshot-0000000001.npz")
        assert np.isfinite(store.newest().members[0].center).all()
        Path(tmp_path / "run" / "snapshot-0000000001.npz").unlink()


def test_a_center_that_is_ruined_too_often_ends_the_job_with_the_reason(tmp_path):
    with pytest.raises(ServerFailed, match=r"(?s)exit code 3.*the center holds NaN or infinity"):
        run(tmp_path, times=3, restarts=1)
