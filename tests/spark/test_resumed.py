"""A training with a run directory goes on after its driver has died, and decides as if it had not."""

from __future__ import annotations

import logging
from dataclasses import replace

import keras
import numpy as np
import pytest

import distkeras
from distkeras import algorithms, load_run
from distkeras.events import EpochEnded
from distkeras.lifecycle import Around
from distkeras.runs import WriteFailed
from distkeras.runs.checkpoints import CheckpointFolder

ROWS = 64


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype("float32")
    return x, (x[:, 0] * x[:, 1]).astype("float32")


def trainer(rule=None, num_workers=1, rate=0.05, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.1, seed=3),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(rate), "mse")
    rule = rule or algorithms.Sequential(2)
    options = {"num_epoch": 4, "batch_size": 8, "seed": 1} | options
    return distkeras.DistributedTrainer(model, rule, num_workers=num_workers, **options)


class Dies(keras.callbacks.Callback):
    """Ends the driver's part after an epoch, before its record."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise RuntimeError("the driver dies")


def dying_at(epoch):
    """Return a `CheckpointFolder.add` in which the driver dies after `epoch`."""
    add = CheckpointFolder.add

    def dies(self, number, *args, **options):
        if number == epoch:
            raise RuntimeError("the driver dies")
        return add(self, number, *args, **options)

    return dies


def callbacks(*others):
    return [
        keras.callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.5, min_delta=0.05),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        *others,
    ]


def train(made, data, run, *others, **options):
    return made.train(data, shuffle=True, callbacks=callbacks(*others), run=run, resume="auto", **options)


@pytest.mark.usefixtures("spark")
def test_one_worker_goes_on_exactly_with_the_callbacks_where_they_were(data, tmp_path, caplog, monkeypatch):
    whole, resumed = trainer(), trainer()
    expected = train(whole, data, tmp_path / "whole")
    broken = trainer()
    with pytest.raises(RuntimeError, match="the driver dies"):
        train(broken, data, tmp_path / "run", Dies(1))
    pulled = broken.interrupted_model().get_weights()
    broken._training.last.clear()  # As if the server could not be asked any more.
    for one, other in zip(pulled, broken.interrupted_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert load_run(tmp_path / "run").status == "interrupted"
    assert [record.epoch for record in load_run(tmp_path / "run").records()] == [0]
    with monkeypatch.context() as patched:
        patched.setattr(CheckpointFolder, "add", dying_at(2))  # After the record of that epoch.
        with pytest.raises(RuntimeError, match="the driver dies"):
            train(trainer(), data, tmp_path / "run")
    assert [record.epoch for record in load_run(tmp_path / "run").records()] == [0, 1, 2]
    found = train(resumed, data, tmp_path / "run")
    for one, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert resumed.get_history().history == whole.get_history().history
    assert resumed.get_history().epoch == whole.get_history().epoch
    assert resumed.result.reason == whole.result.reason
    run = load_run(tmp_path / "run")
    assert run.history == whole.get_history().history
    assert [window.iteration for window in run.windows()] == [each.iteration for each in whole.get_history()]
    assert [each.iteration for each in resumed.get_history()] == [
        each.iteration for each in whole.get_history()
    ]
    assert {event.epoch for event in run.events() if isinstance(event, EpochEnded)} == set(range(4))
    assert "Dies is not used" in caplog.text
    assert resumed.result.run == str(tmp_path / "run")
    assert list(resumed.result.checkpoints) == [entry.epoch for entry in run.checkpoints().entries]
    assert list(resumed.result.checkpoints) == list(whole.result.checkpoints)
    saved = run.model("last")
    assert int(saved.optimizer.iterations) == 4 * ROWS // 8


@pytest.mark.usefixtures("spark")
def test_a_store_that_refuses_checkpoints_warns_once_and_the_end_reports_the_last_one(
    data, tmp_path, monkeypatch
):
    add, refused = CheckpointFolder.add, {0, 1}

    def refuse(self, epoch, *args, **options):
        if epoch in refused:
            raise OSError("No space left on device")
        return add(self, epoch, *args, **options)

    monkeypatch.setattr(CheckpointFolder, "add", refuse)
    made = trainer(num_epoch=3)
    with pytest.warns(RuntimeWarning, match="The training continues") as warned:
        expected = made.train(data, run=tmp_path / "a")
    assert len([each for each in warned if "The training continues" in str(each.message)]) == 1
    texts = [f"the checkpoint of epoch {epoch} could not be written" for epoch in (0, 1)]
    failed = [event.error for event in load_run(tmp_path / "a").events() if isinstance(event, WriteFailed)]
    assert list(made.result.failures) == failed
    assert all(text in found for text, found in zip(texts, failed, strict=True))
    assert list(made.result.checkpoints) == [2]
    refused.add(2)
    with (
        pytest.warns(RuntimeWarning, match="The training continues"),
        pytest.raises(OSError, match="not complete: the checkpoint of epoch 2 could not be written"),
    ):
        made.train(data, run=tmp_path / "b")
    for one, other in zip(expected.get_weights(), made.interrupted_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("spark")
def test_more_epochs_another_rate_and_other_workers_are_allowed_and_said(data, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    rule = algorithms.ADAG(communication_window=2)
    first = trainer(rule, 1, num_epoch=2)
    first.train(data, run=tmp_path, resume=False)
    assert first.result.reason == "finished"
    with pytest.raises(ValueError, match="a run that has ended"):
        first.train(data, run=tmp_path)
    second = trainer(rule, 1, num_epoch=3, rate=0.01)
    trained = second.train(data, run=tmp_path, resume=True)
    assert "num_epoch=3, which was 2" in caplog.text
    assert "learning_rate=0.01, which was 0.05" in caplog.text
    assert float(trained.optimizer.learning_rate) == pytest.approx(0.01)
    assert second.get_history().epoch == [0, 1, 2]
    third = trainer(rule, 2, num_epoch=4, rate=0.01)
    trained = third.train(data, run=tmp_path, resume="auto")
    assert "num_workers=2, which was 1" in caplog.text
    assert third.get_history().epoch == [0, 1, 2, 3]
    run = load_run(tmp_path)
    assert [session["source"] for session in run.facts["sessions"]] == ["start", "snapshot", "checkpoint"]
    assert [len(values) for values in run.history.values()] == [4]
    assert sum(window.samples for window in run.windows()) == 4 * ROWS
    assert {window.worker for window in run.windows()} == {0, 1}
    assert int(run.model(3).optimizer.iterations) > 3 * ROWS // 8  # It goes on from the checkpoint's.


@pytest.mark.usefixtures("spark")
def test_a_run_that_has_ended_by_itself_is_over_until_more_is_asked(data, tmp_path, caplog):
    ends = {"stop": distkeras.StopWhen(loss=100.0)}
    first = trainer()
    trained = train(first, data, tmp_path, **ends)
    assert (first.result.reason, first.result.epochs) == ("target", 1)
    again, in_place = trainer(), trainer()
    returned = train(again, data, tmp_path, Dies(0), **ends)  # No callback runs.
    history = in_place.train_in_place(None, Around(run=tmp_path, **ends), resume="auto")  # Nor is data read.
    for model in (returned, in_place.keras_model, load_run(tmp_path).model("final")):
        for one, other in zip(trained.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        assert int(model.optimizer.iterations) == ROWS // 8
    assert again.result == in_place.result == replace(first.result, seconds=again.result.seconds)
    assert again.get_history().history == history.history == first.get_history().history
    assert [each.iteration for each in again.get_history()] == [
        each.iteration for each in first.get_history()
    ]
    assert len(load_run(tmp_path).facts["sessions"]) == 1
    assert caplog.text.count("To continue, ask for more epochs or pass resume=True") == 2
    on = trainer()
    on.train(data, shuffle=True, callbacks=callbacks(), run=tmp_path, resume=True)
    assert (on.result.reason, on.get_history().epoch) == ("finished", [0, 1, 2, 3])


@pytest.mark.usefixtures("spark")
def test_a_run_that_was_stopped_from_outside_goes_on(data, tmp_path):
    first, second = trainer(), trainer()
    stops = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 1 and first.stop())
    train(first, data, tmp_path, stops)
    assert (first.result.reason, first.result.epochs) == ("stop", 2)
    train(second, data, tmp_path)
    assert (second.result.reason, second.get_history().epoch) == ("finished", [0, 1, 2, 3])


@pytest.mark.usefixtures("spark")
def test_members_of_an_ensemble_go_on_each_where_it_was(data, tmp_path):
    def train_members(*others):
        made = distkeras.EnsembleTrainer(
            trainer().keras_model, num_ensembles=2, data="all", num_epoch=4, batch_size=8, seed=1
        )
        # Nothing is an improvement, so that the first member ends with its second epoch.
        ends = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1)
        members = made.train(
            data, callbacks=lambda member: [*others] if member else [ends], run=tmp_path, resume="auto"
        )
        return made, members

    with pytest.raises(RuntimeError, match="the driver dies"):
        train_members(Dies(1))
    resumed, members = train_members()
    run = load_run(tmp_path)
    assert [session["source"] for session in run.facts["sessions"]][1:] == ["snapshot"]
    assert [[each.epoch for each in run.records(member)] for member in (0, 1)] == [[0, 1], [0, 1, 2, 3]]
    rows = [sum(each.samples for each in run.windows() if each.worker == member) for member in (0, 1)]
    assert rows == [2 * ROWS, 4 * ROWS]
    again, returned = train_members(Dies(1))  # It is over.
    assert again.result == replace(resumed.result, seconds=again.result.seconds)
    for one, other in zip(members, returned, strict=True):
        np.testing.assert_array_equal(one.get_weights()[0], other.get_weights()[0])
    assert not np.array_equal(members[0].get_weights()[0], members[1].get_weights()[0])
