"""What a resumed training begins with, and what it may change."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from distkeras.algorithms import ADAG, DiLoCo
from distkeras.center import CenterConfig, requests, take_snapshot
from distkeras.center.making import make_center
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import Changes, Interrupted, Start, find_interrupted, start_of, whole_epochs
from distkeras.events import Window
from distkeras.runs import Run
from distkeras.wire.store import SnapshotOptions, Store

ROWS = ((16,),)  # Of an epoch: a window has 8.
SETTINGS = {
    "num_epoch": 3,
    "num_workers": 2,
    "seed": 5,
    "rates": {"learning_rate": 0.1},
    "algorithm": {"name": "ADAG", "fitted": 2},
    "rule": {"name": "ADAG"},
}


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def snapshot(address, windows, seen, independent=False, settings=SETTINGS):
    """Write a snapshot of two workers after `windows` of each, of whose events the driver has read `seen`."""
    config = CenterConfig(ADAG(2), 2, independent=independent)
    initial = np.zeros((2, 2) if independent else 2, np.float32)
    center = make_center(config, initial, clock=lambda: 1.0)
    for worker, count in enumerate(windows):
        center.handle(requests.Join(worker))
        for sequence in range(1, count + 1):
            message = np.ones(2, np.float32)
            center.handle(requests.Exchange(worker, sequence, 2, 8, 0, 2 * sequence, message, {"loss": 1.0}))
    if seen:
        center.handle(requests.Poll(seen))
    Store(address).write(take_snapshot(center, settings))


def found(run, server, settings=SETTINGS, rule=None, rows=ROWS):
    own = ServerOptions(snapshots=run.snapshot_options(server.snapshots))
    return start_of(run, find_interrupted(own, run.resumed), settings, rule or ADAG(2), rows)


def test_a_training_goes_on_from_the_snapshot_and_the_driver_gets_the_events_that_it_may_not_have_read(
    tmp_path,
):
    server = ServerOptions(snapshots=SnapshotOptions())
    with Run.open(tmp_path, "auto") as run:
        assert found(run, server) == Start()
        run.begin(SETTINGS)
    with Run.open(tmp_path, "auto") as run:
        assert found(run, server) == Start()  # It was killed before its first snapshot.
        run.begin(SETTINGS)
        snapshot(f"{tmp_path}/snapshots", (2, 1), seen=3)
    with Run.open(tmp_path, "auto") as run:
        start = found(run, server)
        assert start == Start("snapshot", (1,), 3)  # 24 rows; two joins and a window were read.
        run.begin(SETTINGS, source=start.source, epochs=start.epochs[0])
        assert (
            find_interrupted(ServerOptions(snapshots=run.snapshot_options(SnapshotOptions())), True)
            is not None
        )


def test_members_of_an_ensemble_have_epochs_of_their_own(tmp_path):
    with Run.open(tmp_path) as run:
        run.begin(SETTINGS)
        snapshot(f"{tmp_path}/snapshots", (4, 1), seen=0, independent=True)
    with Run.open(tmp_path, True) as run:
        assert found(run, ServerOptions(), rows=((16,), (16,))) == Start("snapshot", (2, 0), 0)


def test_epochs_rates_and_workers_may_change_and_what_changed_is_said(tmp_path, model):
    server = ServerOptions(snapshots=SnapshotOptions())
    more = SETTINGS | {"num_epoch": 9, "rates": {"learning_rate": 0.01}}
    others = SETTINGS | {"num_workers": 4, "algorithm": {"name": "ADAG", "fitted": 4}}
    with Run.open(tmp_path) as run:
        run.begin(SETTINGS)
        snapshot(f"{tmp_path}/snapshots", (2, 1), seen=0)
    with Run.open(tmp_path, True) as run:
        said = ("num_epoch=9, which was 3", "learning_rate=0.01, which was 0.1")
        assert found(run, server, more) == Start("snapshot", (1,), 0, Changes(said, rates=True))
        with pytest.raises(ValueError, match=r"from a checkpoint of a run.*num_workers=4, which was 2"):
            found(run, server, others)
        run.begin(SETTINGS, source="snapshot", epochs=1)
        run.epoch(0, {"loss": 1.0})
        run.checkpoint(0, {"loss": 1.0}, model)
        assert found(run, server, more).source == "snapshot"  # It is the newer one.
        changes = Changes(("num_workers=4, which was 2",), workers=True)
        start = found(run, server, others)
        assert start == Start("checkpoint", (1,), None, changes)
        with pytest.raises(ValueError, match="num_workers=4, which was 2"):
            found(run, server, others, rule=DiLoCo())  # Its momentum is on the server.
        with pytest.raises(ValueError, match="seed=6, which was 5"):
            found(run, server, others | {"seed": 6})
        run.begin(others, source="checkpoint", epochs=1)
        own = ServerOptions(snapshots=run.snapshot_options(server.snapshots))
        assert find_interrupted(own, True) is None  # Snapshots of the other workers do not count any more.
    with Run.open(tmp_path, True) as run:
        assert run.base == 1
        assert found(run, server, others).source == "checkpoint"
        snapshot(f"{tmp_path}/snapshots", (2, 1), seen=0, settings=others)
        assert found(run, server, others) == Start("snapshot", (2,), 0)


def test_a_run_without_snapshots_goes_on_from_its_last_checkpoint(tmp_path, model):
    with Run.open(tmp_path) as run:
        run.begin(SETTINGS)
        for epoch in range(2):
            run.checkpoint(epoch, {"loss": 1.0}, model)
    with Run.open(tmp_path, True) as run:
        assert start_of(run, None, SETTINGS, DiLoCo(), ROWS) == Start("checkpoint", (2,))


def test_without_a_run_a_training_goes_on_from_its_snapshot_as_before():
    interrupted = Interrupted(json.loads(json.dumps(SETTINGS)), 7, 3, (40,))
    assert start_of(None, interrupted, SETTINGS, ADAG(2), ROWS) == Start("snapshot", (2,), 7)
    assert start_of(None, None, SETTINGS, ADAG(2), ROWS) == Start()


def test_the_history_of_a_resumed_run_lacks_nothing_and_has_nothing_twice(tmp_path):
    """The killed driver had written windows that the snapshot does not know it has read, and later ones."""
    windows = [Window(0, 0, index, 2, 8, {"loss": 1.0}, 0, 1.0, index + 1) for index in range(4)]
    with Run.open(tmp_path) as run:
        run.begin(SETTINGS)
        for window in windows:
            run.write(window)
        snapshot(f"{tmp_path}/snapshots", (3, 0), seen=2)
    with Run.open(tmp_path, True) as run:
        own = ServerOptions(snapshots=run.snapshot_options(SnapshotOptions()))
        interrupted = find_interrupted(own, True)
        center = make_center(CenterConfig(ADAG(2), 2), np.zeros(2, np.float32), clock=lambda: 2.0)
        from distkeras.center import restore_snapshot

        restore_snapshot(center, Store(own.snapshots.address).newest(), interrupted.first_unread)
        [(_, polled)] = center.handle(requests.Poll(interrupted.first_unread))
        for event in polled.events:
            run.write(event)
        assert [window.iteration for window in run.windows()] == [0, 1, 2]


def test_whole_epochs_are_counted_where_their_rows_differ():
    """Steps per epoch that do not divide a pass: epochs of 5, 5 and 2 minibatches, and again."""
    rows, ends = (5, 5, 2), [5, 10, 12, 17, 22, 24]
    for samples in range(30):
        assert whole_epochs(samples, rows) == sum(end <= samples for end in ends) + (samples >= 29)
