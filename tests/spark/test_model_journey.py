"""A model's way to the workers and back on Spark: what must hold with several workers too."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from distkeras import DOWNPOUR, EnsembleTrainer, SingleTrainer
from distkeras.cluster import job
from distkeras.cluster.settings import result_limit
from distkeras.model.variables import value_of

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(128, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int32)


def model(optimizer=None):
    keras.utils.set_random_seed(1)
    made = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, trainable=False),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    settings = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    made.compile(optimizer or keras.optimizers.SGD(0.1), **settings)
    return made


def late_rate():
    """A rate of zero for the 8 steps that `fit` takes in the first of two epochs."""
    return keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([7], [0.0, 0.1]))


@pytest.mark.parametrize(("steps", "moves"), [("training", True), ("local", False)])
def test_a_schedule_follows_the_steps_of_all_workers_or_of_each(spark, steps, moves, monkeypatch):
    watches = []

    class Seen(job.Watch):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            watches.append(self)

    monkeypatch.setattr(job, "Watch", Seen)
    given = model(late_rate())
    trained = DOWNPOUR(
        given, num_workers=2, batch_size=16, num_epoch=2, communication_window=2, schedule_steps=steps, seed=1
    ).train((X, Y))
    # Each worker takes 8 steps of the 16 that `fit` takes.
    assert (
        np.abs(value_of(trained.layers[1].kernel) - value_of(given.layers[1].kernel)).max() > 1e-3
    ) == moves
    assert int(trained.optimizer.iterations) == 8
    assert type(trained.optimizer._learning_rate).__name__ == "PiecewiseConstantDecay"
    with pytest.raises(ValueError, match=r"The rate of a schedule.*Received: learning_rate=0.5"):
        watches[0].order(learning_rate=0.5)


def test_the_trained_model_has_averages_state_and_metrics_of_all_workers(spark):
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5)
    trained = DOWNPOUR(
        model(optimizer), num_workers=2, batch_size=16, num_epoch=3, communication_window=2, seed=1
    ).train((X, Y))
    (kernel, _), averages = trained.trainable_variables, trained.optimizer._model_variables_moving_average
    np.testing.assert_array_equal(value_of(kernel), value_of(averages[0]))
    assert int(trained.optimizer.iterations) == 3 * 4
    (count,) = [v for v in trained.metrics_variables if "count" in v.path and "accuracy" in v.path]
    assert float(count) == len(X)
    assert 0.5 < float(trained.get_metrics_result()["accuracy"]) <= 1.0
    trained.fit(X, Y, batch_size=16, verbose=0)
    assert int(trained.optimizer.iterations) == 3 * 4 + 8


def test_weights_that_stay_at_home_are_those_that_train_finds(spark):
    given = model()
    trainer = SingleTrainer(given, batch_size=16)
    given.layers[0].kernel.assign(np.full((4, 3), 0.5))
    trained = trainer.train((X, Y))
    np.testing.assert_array_equal(value_of(trained.layers[0].kernel), np.full((4, 3), 0.5, np.float32))
    given.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        value_of(trained.layers[1].kernel), value_of(given.layers[1].kernel), atol=1e-6
    )


def test_each_member_of_an_ensemble_has_its_own_state_and_the_frozen_weights_that_were_given(spark):
    given = model(keras.optimizers.Adam(0.01))
    members = EnsembleTrainer(given, num_ensembles=2, batch_size=16, seed=3).train((X, Y))
    for member in members:
        np.testing.assert_array_equal(value_of(member.layers[0].kernel), value_of(given.layers[0].kernel))
        assert int(member.optimizer.iterations) == 4
    first, second = (value_of(member.optimizer.variables[2]) for member in members)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("text", "expected"), [("1g", 2**30), ("512m", 2**29), ("2GB", 2**31), ("1048576", 2**20), ("0", 2**62)]
)
def test_the_limit_of_results_is_read_as_spark_reads_it(text, expected):
    session = SimpleNamespace(conf=SimpleNamespace(get=lambda name, default: text))
    assert result_limit(session) == expected
