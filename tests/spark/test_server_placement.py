"""Parameter servers as Spark tasks on executors, which the driver asks by files in a shared folder."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace

import keras
import numpy as np
import psutil
import pytest

import distkeras
from distkeras import Placement
from distkeras.algorithms import DOWNPOUR, Sequential
from distkeras.center import CenterConfig
from distkeras.center.requests import Poll, Pull
from distkeras.cluster import placing as cluster_placing
from distkeras.cluster import reach
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.placement import NotShared
from distkeras.cluster.placing import Placing, check_options, check_room
from distkeras.cluster.server import ServerFailed, ServerSetup
from distkeras.cluster.server_parts import ServerParts
from distkeras.cluster.server_tasks import ServerTasks
from distkeras.cluster.shared_access import Courier, Direct, find_access
from distkeras.cluster.slots import NotEnoughSlots
from distkeras.cluster.story import Story
from distkeras.events import ServerStatus
from distkeras.runs import RunOptions
from distkeras.wire.shared_folder import SharedFolder
from distkeras.wire.store import SnapshotOptions

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(120, 6)).astype("float32")
Y = (X.sum(1) > 0).astype("int64")
TRAIN, HELD = (X[:90], Y[:90]), (X[90:], Y[90:])


def small_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Halved(keras.callbacks.Callback):
    """Writes weights once, and notes what it sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((epoch, sorted(logs.items())))
        if epoch == 0:
            self.model.set_weights([weight * 0.5 for weight in self.model.get_weights()])


def trained(placement, run, **options):
    halved = Halved()
    early = keras.callbacks.EarlyStopping("val_loss", patience=0, min_delta=0.5, restore_best_weights=True)
    trainer = distkeras.DistributedTrainer(
        small_model(),
        Sequential(),
        num_workers=1,
        batch_size=10,
        num_epoch=8,
        seed=3,
        server_placement=placement,
        **options,
    )
    model = trainer.train(TRAIN, validation_data=HELD, callbacks=[halved, early], run=run)
    return model.get_weights(), halved.seen, trainer.result


def test_a_training_with_its_server_on_an_executor_is_that_with_the_server_beside_the_driver(spark, tmp_path):
    """Callbacks, written weights, validation, an early stop and a kept run included."""
    weights, seen, result = trained("driver", tmp_path / "here")
    others, seen_there, there = trained("executors", tmp_path / "there", server=ServerOptions(tls=True))
    assert seen_there == seen
    assert all((mine == theirs).all() for mine, theirs in zip(weights, others, strict=True))
    assert (there.reason, there.epochs) == (result.reason, result.epochs) == ("callback", 2)
    assert (result.server_placement, there.server_placement) == ("driver", "executors")
    # Nothing is left at the shared address but the run, with the servers' snapshots in it.
    assert sorted(os.listdir(tmp_path / "there")) == sorted(os.listdir(tmp_path / "here"))
    assert any(name.endswith(".npz") for name in os.listdir(tmp_path / "there" / "snapshots"))


def server_processes():
    """The servers' processes that descend from this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # It has just ended.
            if "distkeras.wire" in process.cmdline():
                found.append(process)
    return found


def test_a_server_goes_on_when_its_process_or_its_whole_task_is_killed(spark, tmp_path):
    killed = []
    trainer = distkeras.DOWNPOUR(
        small_model(),
        communication_window=2,
        num_workers=1,
        batch_size=10,
        num_epoch=100_000,
        server_placement=Placement("executors", shared=str(tmp_path)),
        server=ServerOptions(snapshots=SnapshotOptions(seconds=0.2)),
    )

    def windows_after(count):
        deadline = time.monotonic() + 120
        while len(trainer.get_history()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill_both():
        windows_after(5)
        (process,) = server_processes()
        process.send_signal(signal.SIGKILL)
        killed.append(process.pid)
        while not (restarted := [each for each in server_processes() if each.pid != process.pid]):
            time.sleep(0.02)
        windows_after(len(trainer.get_history()) + 50)
        task = restarted[0].parent()
        task.send_signal(signal.SIGKILL)
        killed.append(task.pid)
        windows_after(len(trainer.get_history()) + 50)

    def drive():
        try:
            kill_both()
        finally:
            trainer.stop()

    thread = threading.Thread(target=drive)
    thread.start()
    trainer.train(TRAIN)
    thread.join()
    assert len(killed) == 2
    told = [each.text for each in trainer.get_transitions()]
    assert sum("is started again from its last snapshot" in text for text in told) == 2
    assert trainer.result.reason == "stop"
    windows = [window.iteration for window in trainer.get_history()]
    assert windows == list(range(len(windows)))  # None is lost, and none counts twice.
    assert server_processes() == []
    assert os.listdir(tmp_path) == []


def parts_of(num_servers=1, size=3000, **options):
    setup = ServerSetup(CenterConfig(DOWNPOUR(), 1), options=ServerOptions(**options))
    return ServerParts(num_servers, setup, size)


def test_spark_jobs_carry_the_requests_of_a_driver_that_does_not_reach_the_folder(
    spark, tmp_path, monkeypatch
):
    folder = SharedFolder(str(tmp_path / "shared"))
    assert isinstance(find_access(spark, folder, 2), Direct)
    initial = np.arange(3000, dtype=np.float32)
    with (
        ServerTasks(spark, parts_of(), initial, folder, Courier(spark), abandoned=60.0) as servers,
        servers.client() as client,
    ):
        # Nothing the driver writes or reads by itself counts.
        monkeypatch.setattr(SharedFolder, "open", None)
        polled = client.call(Poll(0))
        assert polled.next == len(polled.events)
        assert all(isinstance(event, ServerStatus) for event in polled.events)  # One a second.
        assert (client.call(Pull()).center == initial).all()
    monkeypatch.undo()
    assert folder.names() == []


def wait_until_lost(servers):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        servers.revive(0)
        time.sleep(0.05)


def test_servers_without_a_word_of_their_driver_end_and_leave_their_slots(spark, tmp_path):
    folder = SharedFolder(str(tmp_path))
    with (
        ServerTasks(
            spark, parts_of(), np.zeros(3000, np.float32), folder, Direct(folder), abandoned=0.5
        ) as servers,
        pytest.raises(ServerFailed, match=r"The driver has sent no request for \d s"),
    ):
        wait_until_lost(servers)
    assert server_processes() == []


def test_what_cannot_be_is_refused_before_anything_starts(spark, tmp_path):
    with pytest.raises(NotShared, match="Received: run=None, shared=None"):
        trained("executors", None)
    with pytest.raises(NotShared, match="memory://run"):
        trained("executors", "memory://run")
    with pytest.raises(ValueError, match="Expected one of 'driver', 'executors'"):
        trained("workers", None)
    with pytest.raises(ValueError, match="`abandoned` must be a positive"):
        Placement("executors", abandoned=0)
    for options in ({"host": "here"}, {"record": str(tmp_path)}):
        with pytest.raises(ValueError, match=f"Received: {next(iter(options))}="):
            check_options(ServerOptions(**options))
    with pytest.raises(NotEnoughSlots, match="needs 3 at once, 1 for parameter servers, 2 for workers"):
        check_room(spark, 2, 1, 0, together=True)
    check_room(spark, 2, 1, 0, together=False)
    with pytest.raises(NotEnoughSlots, match="1 for the driver's requests"):
        check_room(spark, 2, 1, 1, together=False)
    with pytest.raises(NotShared, match=r"on an executor: .*nothing-such"):
        find_access(spark, SharedFolder("nothing-such://run"), 1)


def test_snapshots_of_servers_on_executors_are_in_the_run_or_beside_the_servers():
    given, run = SnapshotOptions(seconds=5.0), RunOptions("s3://bucket/run", storage_options={"key": "k"})
    shared = Placement("executors").shared_with(run, given)
    assert shared.snapshots.address == "s3://bucket/run/snapshots"
    assert shared.snapshots.storage_options == {"key": "k"}
    apart = Placement("executors", shared="relative/folder").shared_with(run, given)
    assert apart.snapshots.address is None
    assert apart.folder.address == os.path.abspath("relative/folder")
    assert Placement("driver").shared_with(run, given) is None
    assert Placement("executors").shared_with(run, None).snapshots is None


def test_where_the_executors_reach_is_found_out_and_said(spark, tmp_path, monkeypatch):
    setup = ServerSetup(CenterConfig(DOWNPOUR(), 1), options=ServerOptions(host="127.0.0.1"))
    placing = Placing(spark, setup, np.zeros(4, np.float32), 1, None, [], Story(), check=lambda: None)
    auto = Placement("auto", shared=str(tmp_path))
    servers, placed = placing.start(auto, auto.shared_with(None, SnapshotOptions()))
    with servers:
        assert str(placed) == "beside the driver: all workers run on its machine"
    for module in (cluster_placing, reach):
        monkeypatch.setattr(module, "is_local", lambda _: False)
    servers, placed = placing.start(auto, None)
    with servers:
        assert str(placed) == "beside the driver: the executors reach it"
    # A host at which nothing listens stands for a closed port.
    options = ServerOptions(host="127.0.0.2", bind="127.0.0.1", shared_memory=False)
    elsewhere = replace(setup, options=options)
    placing = replace(placing, setup=elsewhere)
    with pytest.raises(NotShared, match=r"cannot reach parameter server 0 at 127.0.0.2:\d+: .*refused"):
        placing.start(auto, None)
    servers, placed = placing.start(auto, auto.shared_with(None, SnapshotOptions()))
    with servers:
        assert str(placed).startswith("on executors: An executor on ")
        assert placing.story.transitions()[-1].text == f"The parameter servers run {placed}."
