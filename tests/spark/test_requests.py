"""A running training obeys what people ask of it through files in its run."""

from __future__ import annotations

import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest

import distkeras
from distkeras.runs import RequestTaken, RunError, load_run
from distkeras.runs.control_files import ControlFiles
from distkeras.runs.folder import Folder, find_filesystem

ENDLESS = 100_000


def trainer_of(name):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    options = {"batch_size": 16, "num_epoch": ENDLESS, "verbose": 0}
    if name == "EnsembleTrainer":
        return distkeras.EnsembleTrainer(model, "sgd", "binary_crossentropy", num_ensembles=2, **options)
    return distkeras.DOWNPOUR(
        model, "sgd", "binary_crossentropy", communication_window=2, num_workers=2, **options
    )


@pytest.mark.parametrize("name", ["DOWNPOUR", "EnsembleTrainer"])
def test_a_checkpoint_and_a_stop_that_a_person_asks_for_are_obeyed_and_told(spark, tmp_path, name):
    draw = np.random.default_rng(1)
    rows = pd.DataFrame({"features": list(draw.normal(size=(256, 4))), "label": np.arange(256) % 2})
    trainer, run = trainer_of(name), tmp_path / "run"
    control = ControlFiles(Folder(*find_filesystem(str(run))))
    control.ask("stop", "somebody, of an earlier driver")
    saw = []

    def wait(condition):
        deadline = time.monotonic() + 90
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def ask():
        wait(lambda: len(trainer.get_history()) > 2)
        saw.extend(control.asked())
        control.ask("checkpoint", "a test")
        wait(lambda: control.asked() == [])
        saw.append(load_run(run).status)
        (run / "control" / "stop.json").write_text("made by hand")

    thread = threading.Thread(target=ask)
    thread.start()
    trained = trainer.train(spark.createDataFrame(rows).repartition(2), run=str(run))
    thread.join()
    assert saw == ["running"]  # And not asked to stop: that was for an earlier driver.
    assert (trainer.result.reason, trainer.result.detail) == ("stop", "a file in the run asked for it")
    assert control.asked() == []
    loaded = load_run(run)
    taken = [event for event in loaded.events() if isinstance(event, RequestTaken)]
    assert [event.request for event in taken] == ["checkpoint", "stop"]
    members = (0, 1) if name == "EnsembleTrainer" else (None,)
    models = trained if isinstance(trained, list) else [trained]
    for member, model in zip(members, models, strict=True):
        asked = loaded.model("asked", member=member)
        assert asked.optimizer is not None
        assert [value.shape for value in asked.get_weights()] == [
            value.shape for value in model.get_weights()
        ]
        for other in (loaded.model("initial"), model):  # It is of the middle of the training.
            assert not np.array_equal(asked.get_weights()[0], other.get_weights()[0])
        assert any(event.detail.count(".keras") == len(members) for event in taken)


def test_a_run_of_which_nobody_asked_for_a_checkpoint_says_so(tmp_path):
    with distkeras.runs.Run.open(str(tmp_path / "run")) as run:
        run.begin({})
    with pytest.raises(RunError, match="asked"):
        load_run(tmp_path / "run").model("asked")
