"""Elastic trainings on Spark: shares of the rows, which any process trains. Each row counts its epochs."""

from __future__ import annotations

import os
import signal

import keras
import numpy as np
import pytest

import distkeras

ROWS, EPOCHS = 200, 3


def counting_model():
    """A model with a weight for each row, to which each step adds one: deltas add up in the center."""
    network = keras.Sequential(
        [keras.Input((1,), dtype="int32"), keras.layers.Embedding(ROWS, 1, "zeros"), keras.layers.Flatten()]
    )
    network.compile(keras.optimizers.SGD(1.0), keras.losses.MeanAbsoluteError(reduction="sum"))
    return network


def make_trainer(**options):
    options = {"max_workers": 1, "num_epoch": EPOCHS, "seed": 0, "verbose": 0, **options}
    return distkeras.DOWNPOUR(
        counting_model(), features_col="id", batch_size=10, communication_window=2, **options
    )


def make_rows(spark):
    return spark.range(0, ROWS, 1, 3).selectExpr("id", "1000.0 AS label")


def epochs_of_rows(model):
    return model.get_weights()[0].ravel().tolist()


def ends_once(flag):
    """Return a `preprocess` that ends its process once, in the second epoch that the process sees."""

    def preprocess(columns):
        if not flag.exists():
            seen = flag.with_suffix(".seen")
            with seen.open("a") as file:
                file.write("x")
            if seen.stat().st_size == 30:  # Of the 20 minibatches of an epoch.
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return columns["id"][:, None], columns["label"][:, None]

    return preprocess


def test_rows_of_a_killed_process_are_trained_by_others_none_lost_and_none_doubled(spark, tmp_path):
    trainer = make_trainer(preprocess=ends_once(tmp_path / "ended"))
    model = trainer.train(make_rows(spark), shuffle=True, validation_data=make_rows(spark).limit(20))
    assert (tmp_path / "ended").exists()
    assert epochs_of_rows(model) == [EPOCHS] * ROWS
    for share in range(4):
        own = trainer.get_executor_history(share)
        assert [window.iteration for window in own] == list(range(len(own)))
        assert sum(window.samples for window in own) == EPOCHS * ROWS // 4
        assert [window.epoch for window in own] == sorted(window.epoch for window in own)
    assert trainer.num_updates == len(trainer.get_history())
    assert len(trainer.get_history().history["val_loss"]) == EPOCHS
    assert trainer.result.reason == "finished"


class StopAfter(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 0


def test_a_training_that_is_stopped_goes_on_with_every_share_where_it_was(spark, tmp_path):
    address = str(tmp_path / "run")
    stopped = make_trainer(num_epoch=6)
    model = stopped.train(make_rows(spark), run=address, callbacks=[StopAfter()])
    assert stopped.result.reason == "callback"
    assert 1 <= np.mean(epochs_of_rows(model)) < 6
    resumed = make_trainer(num_epoch=6)
    model = resumed.train(make_rows(spark), run=address, resume=True)
    assert epochs_of_rows(model) == [6] * ROWS


def test_what_needs_the_same_workers_throughout_is_refused_by_name(spark):
    rows = make_rows(spark)
    with pytest.raises(ValueError, match="with max_workers"):
        make_trainer().train(rows, validation_data=rows, validate_on="workers")
    for trainer, options in (
        (distkeras.DiLoCo, {"max_workers": 2}),
        (distkeras.EnsembleTrainer, {"max_workers": 2}),
        (distkeras.DOWNPOUR, {"max_workers": 2, "num_workers": 3}),
        (distkeras.DOWNPOUR, {"min_workers": 2}),
    ):
        with pytest.raises(ValueError, match=r"Received: .*m.*_workers"):
            trainer(counting_model(), **options)
    with pytest.raises(ValueError, match=r"local\[N\]"):
        make_trainer(resources=distkeras.Resources()).train(rows)
    with pytest.raises(TypeError, match="Received: resources"):
        make_trainer(resources={"cores": 1})


def test_fit_takes_workers_that_come_and_go(spark):
    model = counting_model()
    ids, labels = np.arange(ROWS)[:, None], np.full((ROWS, 1), 1000.0)
    history = distkeras.fit(model, ids, labels, batch_size=10, epochs=2, max_workers=1, verbose=0)
    assert epochs_of_rows(model) == [2] * ROWS
    assert len(history.history["loss"]) == 2
    with pytest.raises(ValueError, match="Received: steps_per_epoch=3, max_workers=1"):
        distkeras.fit(model, ids, labels, max_workers=1, steps_per_epoch=3)
