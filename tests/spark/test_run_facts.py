"""Everything that a run says of a training on Spark: one training, all of its facts."""

from __future__ import annotations

import math
import os
import platform
import time

import keras
import numpy as np
import pytest

from distkeras import load_run
from distkeras.events import ServerStatus, WorkerJoined, WorkerPhase
from distkeras.runs import Epoch, Second, Totals
from distkeras.trainers import LocalSGD

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(96, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def training(spark, tmp_path_factory):
    """A trainer that has trained, and its run."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    trainer = LocalSGD(model, num_workers=2, communication_window=2, batch_size=8, num_epoch=3)
    run = tmp_path_factory.mktemp("facts") / "run"
    # The server tells once a second how it does, so the training takes longer than that.
    pause = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.6))
    trainer.train((X, Y), run=run, validation_split=0.25, callbacks=[pause])
    return trainer, load_run(run)


def test_the_facts_of_a_run_are_in_its_file(training, spark):
    (session,) = training[1].facts["sessions"]
    facts, context = session["facts"], spark.sparkContext
    assert (session["host"], session["pid"]) == (platform.node(), os.getpid())
    assert {"python", "distkeras", "keras", "pyspark", "numpy"} <= set(session["versions"])
    assert (facts["trainer"], facts["rule"]) == ("LocalSGD", {"name": "LocalSGD", "communication_window": 2})
    assert (facts["backend"], facts["workers"]) == (keras.backend.backend(), 2)
    assert (sum(facts["rows"]), len(facts["rows"])) == (72, 2)
    assert (facts["epochs"], facts["first_epoch"], facts["epoch_rows"]) == (3, 0, [72])
    assert facts["weights"] == {"elements": 4, "bytes": 16}
    assert facts["server"]["class"] == "ServerOptions"
    expected = {"id": context.applicationId, "name": "distkeras-tests", "master": "local[2]"}
    known = {"version": spark.version, "ui": context.uiWebUrl, "executors": 1, "slots": 2}
    assert facts["spark"] == expected | known
    assert facts["placed"]["where"] == "driver"
    (address,) = facts["addresses"]
    assert address.startswith("127.0.0.1:")
    assert facts["cores_per_worker"] == 1


def test_every_worker_says_what_it_is_and_what_it_does(training):
    events = list(training[1].events())
    joined = {event.worker: event.about for event in events if isinstance(event, WorkerJoined)}
    assert set(joined) == {0, 1}
    assert sum(about.rows for about in joined.values()) == 72
    for about in joined.values():
        assert (about.host, about.executor, about.cores) == (platform.node(), "driver", 1)
        assert (about.backend, about.device) == (keras.backend.backend(), "cpu")
        assert about.memory > 2**20
    for worker in range(2):
        told = [event for event in events if isinstance(event, WorkerPhase) and event.worker == worker]
        phases = ["starting", "importing", "loading", "waiting", "compiling", "training"]
        assert [event.phase for event in told] == phases
        assert sorted(event.timestamp for event in told) == [event.timestamp for event in told]


def test_every_window_says_where_the_time_went(training):
    trainer, _ = training
    for worker in range(2):
        timings = [window.timing for window in trainer.get_history() if window.worker == worker]
        first, *others = timings
        assert first.exchanging < first.computing  # It has compiled, and exchanged nothing yet.
        assert all(timing.computing > 0 for timing in timings)
        assert all(0 <= timing.blocked <= timing.exchanging for timing in timings)
        assert all(min(timing.bytes_out, timing.bytes_in) > 16 for timing in others)
        assert sum(timing.resends for timing in timings) == 0


def test_the_server_and_the_epochs_are_in_the_rollups_whose_sums_are_those_of_the_history(training):
    trainer, run = training
    rolled, totals, history = list(run.rollups()), Totals(), trainer.get_history()
    for each in rolled:
        totals.take(each)
    seconds = [each for each in rolled if isinstance(each, Second)]
    assert totals.windows == sum(each.windows for each in seconds) == len(history)
    assert totals.samples == seconds[-1].samples == sum(window.samples for window in history) == 216
    assert totals.updates == trainer.num_updates
    loss = sum(each.metrics["loss"] * each.rows for each in seconds) / totals.samples
    assert loss == pytest.approx(sum(w.metrics["loss"] * w.samples for w in history) / totals.samples)
    computing = sum(worker.computing for each in seconds for worker in each.workers.values())
    assert computing == pytest.approx(sum(window.timing.computing for window in history), abs=1e-4)
    epochs = [each for each in rolled if isinstance(each, Epoch)]
    assert [(each.epoch, each.samples) for each in epochs] == [(r.epoch, r.samples) for r in run.records()]
    assert epochs[-1].samples == 216
    assert [each.logs["val_loss"] for each in epochs] == run.history["val_loss"]
    statuses = [each for each in rolled if isinstance(each, ServerStatus)]
    assert all(each.memory > 2**20 and each.server == 0 for each in statuses)
    assert math.isfinite(statuses[-1].center_norm)
