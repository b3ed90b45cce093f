"""Which Keras optimizers EAMSGD takes; the model that the user gets back has the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
import pytest

from distkeras import AEASGD, EAMSGD, GPA, DistributedTrainer
from distkeras.algorithms import DOWNPOUR, REGISTRY
from distkeras.model.weights import initial_vector

WITHOUT_MOMENTUM = {
    "SGD": lambda: keras.optimizers.SGD(0.1, weight_decay=0.01, clipnorm=1.0),
    "SGD by name": lambda: "sgd",
    "SGD with a moving average": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9),
    "Adagrad": keras.optimizers.Adagrad,
    "Adadelta": keras.optimizers.Adadelta,
    "Adafactor": keras.optimizers.Adafactor,
    "Ftrl": keras.optimizers.Ftrl,
    "RMSprop": keras.optimizers.RMSprop,
    "Adam without its first moment": lambda: keras.optimizers.Adam(beta_1=0.0),
    "scaled SGD": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
}
WITH_MOMENTUM = {
    "SGD": (lambda: keras.optimizers.SGD(0.1, momentum=0.5), "SGD with momentum=0.5"),
    "RMSprop": (lambda: keras.optimizers.RMSprop(momentum=0.5), "RMSprop with momentum=0.5"),
    "Adam by name": (lambda: "adam", "Adam with beta_1=0.9"),
    "AdamW": (keras.optimizers.AdamW, "AdamW with beta_1=0.9"),
    "Adamax": (keras.optimizers.Adamax, "Adamax with beta_1=0.9"),
    "Nadam": (keras.optimizers.Nadam, "Nadam with beta_1=0.9"),
    "Lamb": (keras.optimizers.Lamb, "Lamb with beta_1=0.9"),
    "Lion": (keras.optimizers.Lion, "Lion with beta_1=0.9"),
    "Muon": (keras.optimizers.Muon, "Muon with momentum=0.95"),
    "scaled Adam": (
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        "LossScaleOptimizer with beta_1=0.9",
    ),
}


def make_model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


@pytest.mark.parametrize("name", WITHOUT_MOMENTUM)
def test_optimizers_without_momentum_are_taken(name):
    trainer = EAMSGD(make_model(), WITHOUT_MOMENTUM[name](), "mse")
    assert trainer.algorithm.inner_momentum == 0.9


@pytest.mark.parametrize("name", WITH_MOMENTUM)
def test_optimizers_with_momentum_of_their_own_are_refused(name):
    optimizer, received = WITH_MOMENTUM[name]
    with pytest.raises(ValueError, match=f"EAMSGD.*twice.*SGD.*AEASGD.*Received: {received}"):
        EAMSGD(make_model(), optimizer(), "mse")


def test_the_optimizer_of_a_compiled_model_is_refused_likewise():
    model = make_model()
    model.compile("nadam", "mse")
    with pytest.raises(ValueError, match="Received: Nadam with beta_1"):
        EAMSGD(model)


def test_accumulated_gradients_are_refused():
    with pytest.raises(ValueError, match=r"`batch_size`.*Received: SGD with gradient_accumulation_steps=4"):
        EAMSGD(make_model(), keras.optimizers.SGD(gradient_accumulation_steps=4), "mse")


@pytest.mark.parametrize("trainer", [lambda *given: EAMSGD(*given, momentum=0.0), AEASGD])
def test_without_momentum_in_the_rule_any_optimizer_is_taken(trainer):
    assert trainer(make_model(), "adam", "mse").algorithm.inner_momentum == 0


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"EAMSGD"}))
def test_no_other_rule_adds_momentum(name):
    assert REGISTRY[name]().inner_momentum == 0


def test_a_rule_of_the_user_may_ask_for_momentum():
    @dataclass(frozen=True)
    class Eager(DOWNPOUR):
        inner_momentum: float = 0.5

    assert DistributedTrainer(make_model(), Eager(), "sgd", "mse").algorithm.inner_momentum == 0.5
    with pytest.raises(ValueError, match=r"Eager adds.*momentum=0\.5"):
        DistributedTrainer(make_model(), Eager(), "adam", "mse")


def test_the_trained_model_has_the_users_optimizer():
    model = make_model()
    trainer = EAMSGD(model, keras.optimizers.SGD(0.25), "mse")
    trained = trainer._given.trained(initial_vector(model))
    assert isinstance(trained.optimizer, keras.optimizers.SGD)
    assert trained.optimizer.momentum == 0
    assert float(trained.optimizer.learning_rate) == 0.25


def test_workers_on_spark_take_the_step_of_the_paper(spark):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
    )
    x = np.random.default_rng(3).normal(size=(16, 3)).astype(np.float32)
    y = x @ np.array([0.5, -1.0, 2.0], np.float32)
    rows = spark.createDataFrame(pd.DataFrame({"features": list(x.astype(float)), "label": y}))
    # One minibatch an epoch, one exchange in all, and an alpha of 1: the center takes the worker's weights.
    options = {"num_workers": 1, "batch_size": 16, "num_epoch": 5, "communication_window": 5}
    trainer = EAMSGD(
        model, keras.optimizers.SGD(0.05), "mse", **options, rho=10.0, learning_rate=0.1, verbose=0
    )
    trained = trainer.train(rows)
    weights, velocity = np.ones(3), np.zeros(3)
    for _ in range(5):
        ahead = weights + 0.9 * velocity
        velocity = 0.9 * velocity - 0.05 * 2 * x.T @ (x @ ahead - y) / 16
        weights = weights + velocity
    np.testing.assert_allclose(trained.get_weights()[0].ravel(), weights, rtol=1e-4, atol=1e-5)
    assert trainer.num_updates == 1


def test_primal_averaging_takes_any_optimizer_that_steps_at_every_minibatch():
    for optimizer in ("adam", keras.optimizers.SGD(0.1, momentum=0.9)):
        assert GPA(make_model(), optimizer, "mse").algorithm.inner_averaging == (0.9, 0.9)
    with pytest.raises(ValueError, match=r"GPA adds its own primal averaging.*gradient_accumulation_steps=4"):
        GPA(make_model(), keras.optimizers.SGD(0.1, gradient_accumulation_steps=4), "mse")
