"""Run directories and models on Spark's own Hadoop file systems, of which fsspec has no driver."""

from __future__ import annotations

import os

import keras
import numpy as np
import pytest

from distkeras.algorithms import ADAG
from distkeras.center import CenterConfig, take_snapshot
from distkeras.center.making import make_center
from distkeras.events import SnapshotWritten, WorkerLeft
from distkeras.runs import Checkpoints, Run, RunError, RunOptions, load_model, load_run, save_model
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.wire.lease import Fenced
from distkeras.wire.store import SnapshotOptions, Store


@pytest.fixture(scope="module")
def mounted(spark, tmp_path_factory):
    """Hadoop's ViewFs, with a folder of the local disk mounted: the same calls as for HDFS."""
    spark.conf.set("fs.viewfs.mounttable.runs.link./data", tmp_path_factory.mktemp("hadoop").as_uri())
    yield "viewfs://runs/data"
    spark.conf.unset("fs.viewfs.mounttable.runs.link./data")


@pytest.fixture(scope="module")
def model():
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    built.compile("sgd", "mse")
    return built


def test_a_run_on_hadoop_is_read_as_it_was_written(mounted, model):
    address = f"{mounted}/runs/a"
    options = RunOptions(address, Checkpoints(keep=1))
    with Run.open(options) as run:
        run.begin({"seed": 7}, model=model)
        for epoch in range(2):
            run.write(WorkerLeft(epoch, 1.0))
            run.epoch(epoch, {"loss": 1.0 / (epoch + 1)}, {"weights": model.get_weights()})
            run.checkpoint(epoch, {"loss": 1.0 / (epoch + 1)}, model)
        with pytest.raises(RunError, match="did not end"):
            Run.open(options)
        with Run.open(options, "auto") as second:
            with pytest.raises(Fenced):
                run.epoch(2, {})
            second.begin({"seed": 7}, epochs=1, source="snapshot")
            assert second.roll_back(1).state["weights"][0].shape == (3, 2)
            second.finish({"reason": "stopped"})
            loaded = load_run(address)
            assert [event.worker for event in loaded.events() if isinstance(event, WorkerLeft)] == [0, 1]
    assert (loaded.status, loaded.history) == ("finished", {"loss": [1.0]})
    assert loaded.checkpoints().entries == ()  # Only the second was kept.
    with pytest.raises(RunError, match="epochs with checkpoints"):
        loaded.model()


def snapshot(local, weights, run):
    """Write a snapshot as a parameter server does, and its event."""
    center = make_center(CenterConfig(ADAG(5)), np.concatenate(weights), clock=lambda: 1.0)
    Store(local).write(take_snapshot(center, {}))
    run.write(SnapshotWritten(8, 0.1, 0, 1.0))


def test_snapshots_of_a_run_on_hadoop_are_copied_there_and_opened_from_there(mounted, model):
    address, names = f"{mounted}/runs/b", []
    with Run.open(address, "auto") as run:
        local = run.snapshot_options(SnapshotOptions(keep=2)).address
        run.begin({"seed": 7}, model=model)
        for value in range(3):
            snapshot(local, [np.full(8, float(value), np.float32)], run)
    names = Folder(*find_filesystem(f"{address}/snapshots")).names()
    assert len(names) == 2  # The server has removed the first.
    assert not os.path.exists(local)
    assert load_run(address).model("snapshot").get_weights()[0].tolist() == [[2.0, 2.0]] * 3
    assert load_model(f"{address}/snapshots", like=model).get_weights()[1].tolist() == [2.0, 2.0]
    with Run.open(address, "auto") as run:
        local = run.snapshot_options(SnapshotOptions(keep=2)).address
        assert Store(local).newest().members[0].center.tolist() == [2.0] * 8
        run.begin({"seed": 7}, source="snapshot")
    with Run.open(address, "auto") as run:
        run.begin({"seed": 7}, source="checkpoint")  # Snapshots of another center do not count any more.
        assert Folder(*find_filesystem(f"{address}/snapshots")).names() == []


def test_a_model_is_saved_to_hadoop_and_loaded_from_it(mounted, model):
    address = f"{mounted}/models/m.keras"
    save_model(model, address)
    save_model(model, address)  # In place of the first.
    np.testing.assert_array_equal(load_model(address).get_weights()[0], model.get_weights()[0])
    with pytest.raises(FileExistsError):
        save_model(model, address, overwrite=False)
    with pytest.raises(FileNotFoundError):
        load_model(f"{mounted}/models/none.keras")
    folder = Folder(*find_filesystem(f"{mounted}/models"))
    assert (folder.names(), folder.names("nothing")) == (["m.keras"], [])


def test_an_error_of_hadoop_is_short_and_names_the_address(spark):
    with pytest.raises(OSError, match=r"Hadoop cannot use hdfs://no-such-host\.invalid") as error:
        load_run("hdfs://no-such-host.invalid:9/a")
    assert len(str(error.value)) < 300
