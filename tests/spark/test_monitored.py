"""Monitors of real trainings: they learn what the history has, and none of their troubles ends anything."""

from __future__ import annotations

import sys
import threading
import warnings
from types import ModuleType
from urllib.request import urlopen

import keras
import numpy as np
import pytest

import distkeras
from distkeras.algorithms import ADAG
from distkeras.events import Window, WorkerJoined, WorkerLeft
from distkeras.ml import KerasEstimator
from distkeras.monitor import MLflow, Monitor, Prometheus, TensorBoard
from distkeras.runs import Epoch, RunOptions, RunResumed

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(96, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def small_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    return model


class Recording(Monitor):
    def __init__(self):
        self.facts, self.results, self.events = [], [], []

    def begin(self, training):
        self.facts.append(training)
        self.kept = training.notes.get("recording")
        training.notes.put("recording", {"times": self.kept.get("times", 0) + 1})

    def take(self, events):
        self.events += events

    def end(self, result):
        self.results.append(result)


class Failing(Monitor):
    def take(self, events):
        raise RuntimeError("this monitor fails")


class Hanging(Monitor):
    patience = 0.05

    def begin(self, training):
        threading.Event().wait()

    def take(self, events):
        raise AssertionError("It has not begun.")


class Scraped(Prometheus):
    """Scrapes itself at the end of the training."""

    def end(self, result):
        for rolled in self._rollup.flush():
            self._gauges.add(rolled)
        with urlopen(self.address) as answer:
            self.text = answer.read().decode()
        super().end(result)


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), {"scalars": 0})
    found.Reload()
    return {
        name: [(each.step, each.value) for each in found.Scalars(name)] for name in found.Tags()["scalars"]
    }


def sum_over_rows(points):
    """Return the sum of a mean's points, each of which is over the rows since the point before."""
    steps = [0, *(step for step, _ in points)]
    return sum(value * (step - before) for (step, value), before in zip(points, steps, strict=False))


def run_files(folder):
    return [path for path in (folder / "run-7").rglob("*.json*") if path.is_file()]


def test_monitors_see_what_the_history_has_beside_one_that_fails_and_one_that_hangs(
    spark, tmp_path, monkeypatch
):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setitem(
        sys.modules, "tensorboard.compat.notf", ModuleType("notf")
    )  # No TensorFlow is needed.
    options = {"auto_mkdir": True, "password": "hunter2222"}
    recording, run = Recording(), RunOptions(str(tmp_path / "run-7"), storage_options=options)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # Making one in SQLite takes seconds.
    flow, scraped = MLflow((tmp_path / "mlflow").as_uri()), Scraped(port=0)
    monitors = [recording, Failing(), Hanging(), "tensorboard", flow, scraped]
    trainer = distkeras.DistributedTrainer(
        small_model(), ADAG(communication_window=2), num_workers=2, batch_size=8, num_epoch=2
    )
    held = {"validation_data": (X, Y), "validate_on": "workers"}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        model = trainer.train(
            (X, Y), run=run, validation_data=(X, Y), validate_on="workers", monitor=monitors
        )
    texts = [str(warning.message) for warning in caught if "monitor" in str(warning.message)]
    assert len(texts) == 2, texts
    assert any("Failing has failed" in text and "this monitor fails" in text for text in texts)
    assert any("Hanging has not ended" in text for text in texts)
    windows = [event for event in recording.events if isinstance(event, Window) and event.steps]
    assert windows == list(trainer.get_history())
    assert {WorkerJoined, WorkerLeft} <= {type(event) for event in recording.events}
    (facts,), (result,) = recording.facts, recording.results
    assert (facts.title, facts.name, facts.rule) == ("DistributedTrainer, 2 workers", "run-7", "ADAG")
    assert (facts.num_workers, facts.rows, facts.epochs, facts.members) == (2, len(X), 2, 1)
    assert facts.target == 2 * len(X) == sum(window.samples for window in windows)
    assert (facts.settings["batch_size"], facts.settings["trainer"]) == (8, "DistributedTrainer")
    assert (result["reason"], result["epochs"], result["models"]) == ("finished", 2, [model])
    (epoch,) = (event for event in recording.events if isinstance(event, Epoch) and event.epoch == 1)
    assert epoch.logs["val_loss"] == trainer.get_history().history["val_loss"][1]
    assert "hunter2222" not in repr(facts) + "".join(path.read_text() for path in run_files(tmp_path))

    curve = scalars(tmp_path / "run-7" / "tensorboard" / "center")
    total = sum(window.metrics["loss"] * window.samples for window in windows)
    assert sum_over_rows(curve["loss"]) == pytest.approx(total, rel=1e-5)
    assert curve["val_loss"][-1] == (2 * len(X), pytest.approx(epoch.logs["val_loss"], rel=1e-6))
    stored = flow._client.get_metric_history(flow.run_id, "loss")
    assert sum_over_rows([(each.step, each.value) for each in stored]) == pytest.approx(total)
    assert [path.path for path in flow._client.list_artifacts(flow.run_id, "model")] == ["model/model.keras"]
    rows = [line for line in scraped.text.splitlines() if line.startswith("distkeras_worker_rows_total")]
    assert sum(float(line.split()[-1]) for line in rows) == 2 * len(X)

    trainer.num_epoch = 3
    again = Recording()
    trainer.train((X, Y), run=run, resume="auto", monitor=[again, TensorBoard()], **held)
    assert again.kept == {"times": 1}  # What the monitor of the first session has put.
    assert again.facts[0].is_resumed
    assert any(isinstance(event, RunResumed) for event in again.events)
    assert again.facts[0].target == 3 * len(X)
    longer = scalars(tmp_path / "run-7" / "tensorboard" / "center")["loss"]
    assert longer[: len(curve["loss"])] == curve["loss"]
    assert longer[-1][0] == 3 * len(X)


def test_fit_and_an_estimator_take_monitors_and_a_training_with_an_error_tells_them(spark, tmp_path):
    recording, model = Recording(), small_model()
    with pytest.raises(ValueError, match="Expected the name of a monitor"):
        distkeras.fit(model, X, Y, num_workers=1, monitor="tensorbord")
    estimator = KerasEstimator(model=small_model(), numWorkers=1, monitor=[recording])
    frame = spark.createDataFrame([(row.tolist(), float(y)) for row, (y,) in zip(X, Y, strict=True)])
    estimator.fit(frame.toDF("features", "label"))
    assert recording.results[0]["reason"] == "finished"
    estimator.write().overwrite().save(str(tmp_path / "object"))
    with pytest.raises(ValueError, match=r"set `monitor` again.*Recording"):
        KerasEstimator.load(str(tmp_path / "object")).getMonitor()
    estimator.setMonitor("prometheus").save(str(tmp_path / "name"))
    assert KerasEstimator.load(str(tmp_path / "name")).getMonitor() == ["prometheus"]
    with pytest.raises(TypeError, match="must be a name"):
        estimator.setMonitor(7)

    class Ends(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise LookupError("a callback, at https://me:hunter22@host")

    with pytest.raises(LookupError):
        distkeras.fit(model, X, Y, num_workers=1, verbose=0, monitor=recording, callbacks=[Ends()])
    assert recording.results[1]["reason"] == "error"
    assert recording.results[1]["error"] == "LookupError: a callback, at https://***@host"
