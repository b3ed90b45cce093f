"""A real store of MLflow has the settings, the curves and the model of a training."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from events_of import START, facts, windows

from distkeras.events import ServerRestored
from distkeras.monitor import MLflow
from distkeras.runs.folder import Folder, find_filesystem
from distkeras.runs.notes import Notes
from distkeras.runs.rollup import Epoch


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store in SQLite, which takes seconds to make, with its client; artifacts go to a folder beside it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder = tmp_path_factory.mktemp("mlflow")
    patch.chdir(folder)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    yield client
    patch.undo()


@pytest.fixture
def model():
    keras.utils.set_random_seed(1)
    built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    built.compile("sgd", "mse")
    return built


def monitor(store, **further):
    return MLflow(store.tracking_uri, experiment="tests", **further)


def test_a_store_has_settings_curves_and_model(store, model, tmp_path):
    flow = monitor(store)
    flow.begin(facts(run="runs/7"))
    flow.take(windows(0, 12))
    flow.take([Epoch(0, {"loss": 0.5, "val_loss": float("nan")}, 120, 3.0, START + 3)])
    flow.end({"reason": "finished", "models": [model]})
    run = store.get_run(flow.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"num_epoch": "3", "rule.name": "ADAG", "rule.communication_window": "5"}
    assert run.data.tags["distkeras.run"] == "runs/7"
    assert run.data.tags["distkeras.reason"] == "finished"
    loss = store.get_metric_history(flow.run_id, "loss")
    assert [each.step for each in loss] == [40, 80, 120]
    assert loss[0].value == pytest.approx(sum(window.metrics["loss"] for window in windows(0, 4)) / 4)
    assert loss[0].timestamp == int(1000 * (START + 1))
    assert [each.step for each in store.get_metric_history(flow.run_id, "val_loss")] == [120]
    assert store.get_metric_history(flow.run_id, "epoch/loss")[0].value == 0.5
    store.download_artifacts(flow.run_id, "", str(tmp_path))
    assert len((tmp_path / "settings.json").read_text()) > 600
    saved = keras.saving.load_model(tmp_path / "model" / "model.keras")
    np.testing.assert_array_equal(saved.get_weights()[0], model.get_weights()[0])


def test_a_given_run_and_the_active_run_of_the_user_stay_theirs(store, model):
    import mlflow

    mlflow.set_tracking_uri(store.tracking_uri)
    experiment = store.get_experiment_by_name("tests").experiment_id
    given = store.create_run(experiment).info.run_id
    store.log_param(given, "num_epoch", "mine")
    with mlflow.start_run(experiment_id=experiment) as active:
        for run_id in (given, None):
            flow = monitor(store, run_id=run_id, log_model=False)
            flow.begin(facts())
            flow.take(windows(0, 8))
            flow.end({"reason": "error", "error": "something"})
            assert mlflow.active_run().info.run_id == active.info.run_id
        assert (store.get_run(given).info.status, store.get_run(flow.run_id).info.status) == (
            "RUNNING",
            "FAILED",
        )
    own = store.get_run(active.info.run_id)
    assert (own.data.metrics, own.data.params, own.info.status) == ({}, {}, "FINISHED")
    assert store.get_run(given).data.params["num_epoch"] == "mine"
    assert {"loss", "accuracy", "rows_per_second"} <= {*store.get_run(given).data.metrics}


def test_a_resumed_training_goes_on_with_its_run(store, tmp_path):
    folder = Folder(*find_filesystem(str(tmp_path)))
    first = monitor(store)
    first.begin(facts(notes=Notes(folder)))
    first.take(windows(0, 8))
    first._log_waiting()  # And then the driver is killed.
    second = monitor(store)
    second.begin(facts(notes=Notes(folder), is_resumed=True, source="snapshot"))
    second.take(
        [ServerRestored([4, 4], [False, False], 80, 8, START + 100), *windows(8, 16, start=START + 200)]
    )
    second.end({"reason": "stop"})
    assert second.run_id == first.run_id
    assert [each.step for each in store.get_metric_history(second.run_id, "loss")] == [40, 120, 160]
    Notes(folder).put("mlflow", {"run_id": "0" * 32})  # As if the store were another one.
    third = monitor(store)
    third.begin(facts(notes=Notes(folder), is_resumed=True))
    third.end({"reason": "interrupt"})
    assert third.run_id not in (first.run_id, "0" * 32)
    assert store.get_run(third.run_id).info.status == "KILLED"


def test_members_of_an_ensemble_have_curves_of_their_own(store, model):
    flow = monitor(store)
    flow.begin(facts(members=2))
    flow.take(windows(0, 8))
    flow.take([Epoch(0, {"val_loss": 0.25}, 40, 1.0, START + 3, member=1)])
    flow.end({"reason": "finished", "models": [model, model]})
    metrics = store.get_run(flow.run_id).data.metrics
    assert metrics["member-1/val_loss"] == 0.25
    assert {"member-0/loss", "member-1/loss"} <= {*metrics}
    assert {each.path for each in store.list_artifacts(flow.run_id, "model")} == {
        "model/member-0.keras",
        "model/member-1.keras",
    }
