"""Several trainings at once in one process and one Spark session: none can break another."""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import keras
import numpy as np
import pytest
from pyspark import TaskContext
from pyspark.sql import functions as F  # noqa: N812

import distkeras


@pytest.fixture(autouse=True, scope="module")
def _known_to_workers():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def network():
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(4, "relu"), keras.layers.Dropout(0.25, seed=1), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((1,)), *layers])


def arrays_of(columns):
    return columns["x"].astype("float32").reshape(-1, 1), columns["y"].astype("float32").reshape(-1, 1)


def waiting(file):
    """Return a `preprocess` that lets no worker train before `file` is there."""

    def preprocess(columns):
        deadline = time.monotonic() + 60
        while TaskContext.get() is not None and not os.path.exists(file):
            if time.monotonic() > deadline:
                raise TimeoutError(file)
            time.sleep(0.02)
        return arrays_of(columns)

    return preprocess


def failing(columns):
    if TaskContext.get() is not None:  # The driver tries it on the first rows.
        raise ArithmeticError("a fault of this training alone")
    return arrays_of(columns)


def test_a_training_that_fails_changes_no_bit_of_one_beside_it_and_each_has_its_own_history(spark, tmp_path):
    number = F.col("id")
    rows = spark.range(0, 96, 1, 1).select((number % 7 / 7).alias("x"), (number % 3).alias("y"))
    gate = tmp_path / "failed"

    def trainer(preprocess):
        return distkeras.SingleTrainer(
            *(network(), "adam", "mse"),
            seed=1,
            num_epoch=2,
            features_col=["x"],
            label_col="y",
            preprocess=preprocess,
        )

    # Made here: a seed of Keras's is of the process, and no thread's own.
    beside, alone, bad = (trainer(each) for each in (waiting(str(gate)), waiting(str(gate)), failing))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(beside.train, rows, shuffle=True)
        try:
            with pytest.raises(distkeras.WorkerError, match="a fault of this training alone"):
                bad.train(rows, shuffle=True)
            assert not running.done()
        finally:
            gate.touch()
        trained = running.result(120)
    expected = alone.train(rows, shuffle=True)
    assert bad.get_history() == []
    assert [window.metrics for window in beside.get_history()] == [
        window.metrics for window in alone.get_history()
    ]
    for mine, its in zip(trained.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(np.array(mine), np.array(its))


def test_one_model_is_given_to_many_trainers_at_once_and_stays_as_it_is():
    model = network()
    model.compile("adam", "mse")
    optimizer = model.optimizer
    start = threading.Barrier(4)

    def make(seed):
        start.wait(20)
        found = []
        for _ in range(3):
            trainer = distkeras.EnsembleTrainer(model, "sgd", "mse", num_ensembles=2, seed=seed)
            found.append(trainer._initial())
        return found

    with ThreadPoolExecutor(4) as pool:
        together = [*pool.map(make, range(4))]
    start = threading.Barrier(1)
    for seed, found in enumerate(together):
        for initial in found:
            np.testing.assert_array_equal(initial, make(seed)[0])
    assert (model.optimizer, model.compiled) == (optimizer, True)


def test_a_trained_model_of_another_policy_leaves_keras_in_this_process_as_the_user_has_set_it():
    before = keras.config.dtype_policy(), keras.config.epsilon()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        keras.config.set_epsilon(1e-5)
        trainer = distkeras.DOWNPOUR(network(), "sgd", "mse")
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_epsilon(before[1])
    trained = trainer._given.trained(trainer._given.first_vector())
    assert trained.layers[0].compute_dtype == "bfloat16"
    assert (keras.config.dtype_policy().name, keras.config.epsilon()) == (before[0].name, before[1])
