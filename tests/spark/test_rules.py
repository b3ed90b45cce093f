"""Rules on Spark that need more of it: fragments and a quorum, a codec, memory in the worker, tables."""

from __future__ import annotations

import os
import time

import keras
import numpy as np
import pandas as pd
import pytest

import distkeras
from distkeras.wire.codecs import ChunkTopK

RULES = {
    "AdagradDOWNPOUR": {"outer_learning_rate": 0.2},
    "AdaptiveDCASGD": {"learning_rate": 0.3},
    "DecoupledDiLoCo": {"fragments": 2, "quorum": 1, "grace": 60.0},
    "EagerDiLoCo": {},
    "GPA": {"mu_x": 0.5, "mu_y": 0.5},
    "HALoS": {"outer_learning_rate": 1.0},
    "RescaledASGD": {},
    "RingleaderASGD": {},
    "SparseLoCo": {"compression": ChunkTopK(density=0.5)},
}


@pytest.fixture(scope="module")
def blobs(spark):
    generator = np.random.default_rng(1)
    label = np.arange(256) % 2
    x = generator.normal(size=(256, 4)) + 2 * label[:, None]
    frame = spark.createDataFrame(pd.DataFrame({"features": list(x), "label": label})).repartition(2).cache()
    frame.count()
    yield frame
    frame.unpersist()


def model():
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.Input((4,)), *layers])


def loss_of(trained, frame):
    rows = frame.toPandas()
    x, y = np.stack(rows["features"]), rows["label"].to_numpy(np.float32)
    p = np.clip(trained.predict(x, verbose=0).ravel(), 1e-6, 1 - 1e-6)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_learns_on_spark_from_every_row(blobs, name):
    trainer = getattr(distkeras, name)(
        model(),
        keras.optimizers.SGD(0.3),
        "binary_crossentropy",
        num_workers=2,
        batch_size=16,
        num_epoch=2,
        seed=0,
        verbose=0,
        **({"communication_window": 2} | RULES[name]),
    )
    trained = trainer.train(blobs)
    assert sum(window.samples for window in trainer.get_history()) == 2 * 256
    assert loss_of(trained, blobs) < 0.75 * loss_of(model(), blobs)
    verdicts = {window.verdict for window in trainer.get_history()}
    assert verdicts == ({"take", "buffer"} if name == "RingleaderASGD" else {"take"})


def test_muloco_is_diloco_with_muon_in_the_workers_and_messages_of_two_bits(blobs):
    """Therien et al. 2025 (2505.23725): Muon's matrices survive the flat vector."""
    trainer = distkeras.DiLoCo(
        model(),
        keras.optimizers.Muon(0.02, adam_lr_ratio=1.0),
        "binary_crossentropy",
        num_workers=2,
        batch_size=16,
        num_epoch=2,
        communication_window=4,
        compression=ChunkTopK(density=1.0, bits=2),
        seed=0,
        verbose=0,
    )
    trained = trainer.train(blobs)
    assert trainer.num_updates == 4
    assert loss_of(trained, blobs) < 0.75 * loss_of(model(), blobs)


def test_snoo_is_diloco_with_one_worker(blobs):
    """Kallusky et al. 2025 (2510.15830): with a window of one step and SGD it is Nesterov momentum."""
    options = {"num_workers": 1, "batch_size": 16, "seed": 0, "verbose": 0}
    snoo = distkeras.DiLoCo(
        model(), keras.optimizers.SGD(0.1), "binary_crossentropy", communication_window=1, **options
    ).train(blobs)
    rate = keras.optimizers.SGD(0.7 * 0.1, momentum=0.9, nesterov=True)
    nesterov = distkeras.SingleTrainer(model(), rate, "binary_crossentropy", **options).train(blobs)
    for ours, theirs in zip(snoo.get_weights(), nesterov.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_ringmaster_drops_a_window_that_has_become_too_stale_and_trains_its_rows_again(spark, tmp_path):
    """Worker 1 waits within its first window until the server has taken all windows of worker 0."""
    begun, done, seconds = str(tmp_path / "begun"), str(tmp_path / "done"), 60

    def wait_for(file):
        deadline = time.monotonic() + seconds
        while not os.path.exists(file):
            assert time.monotonic() < deadline, f"Nobody has written {file}."
            time.sleep(0.05)

    def wait(columns):
        from pyspark import TaskContext

        features = np.stack(columns["features"])
        numbers = features[:, 0] if TaskContext.get() is not None else []
        if 47 in numbers:  # Of the first minibatch of worker 0.
            wait_for(begun)
        elif 52 in numbers:  # Of the third minibatch of worker 1, which has pulled the center.
            open(begun, "w").close()
            wait_for(done)
            time.sleep(2)  # It hears of the last commit by its heartbeat.
        return features / 100, columns["label"]

    def saw(batch, logs=None):
        if batch == 23:  # The last of worker 0: its six windows are in the center.
            open(done, "w").close()

    # Worker 0 has the numbers 47 to 0, worker 1 those from 48 on.
    features = "array_repeat(float(IF(id < 48, 47 - id, id)), 4) AS features"
    frame = spark.range(0, 96, 1, 2).selectExpr(features, "0 AS label")
    trainer = distkeras.Ringmaster(
        model(),
        "sgd",
        "binary_crossentropy",
        delay_threshold=3,
        stop=True,
        communication_window=4,
        num_workers=2,
        batch_size=2,
        preprocess=wait,
        server=distkeras.ServerOptions(heartbeat=0.6),
        verbose=0,
    )
    trainer.train(frame, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=saw)])
    windows = {worker: [w for w in trainer.get_history() if w.worker == worker] for worker in (0, 1)}
    assert [sum(window.samples for window in windows[worker]) for worker in (0, 1)] == [48, 48]
    # It began before the first commit of worker 0, and would be stale by all of them.
    assert windows[0][-1].timestamp < windows[1][0].timestamp
    assert (windows[1][0].staleness, windows[1][0].verdict) == (0, "take")
    assert windows[1][0].iteration == 1, "It has dropped no window."
