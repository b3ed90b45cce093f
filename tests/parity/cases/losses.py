"""Losses, and how rows are weighed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import layers, losses, ops
from registry import Training, case
from samples import classes, ids, mlp, numbers, sgd, targets


def regression(loss: Any, outputs: int = 1, **settings: Any) -> Training:
    """Return the training of a small regression with `loss`."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(outputs)])
    return Training(model, numbers(6), targets(outputs), {"optimizer": sgd(), "loss": loss, **settings})


def classification(**options: Any) -> Training:
    """Return the training of a small classifier."""
    settings = {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    return Training(mlp(), numbers(6), classes(3), settings, **options)


def quartic(y: Any, predicted: Any) -> Any:
    """A loss of the user's own."""
    return ops.mean((y - predicted) ** 4, axis=-1)


class Asymmetric(losses.Loss):
    """A loss of the user's own with an argument that its configuration does not hold."""

    def __init__(self, factor: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, y: Any, predicted: Any) -> Any:
        return ops.mean(ops.where(y > predicted, self.factor, 1.0) * ops.abs(y - predicted) ** 2, axis=-1)


@case()
def loss_huber_delta() -> Training:
    return regression(losses.Huber(delta=0.3))


@case()
def loss_function() -> Training:
    return regression(quartic)


@case()
def loss_lambda() -> Training:
    return regression(lambda y, predicted: ops.mean(ops.abs(y - predicted), axis=-1))


@case()
def loss_object_of_its_own() -> Training:
    return regression(Asymmetric(3.0, reduction="sum"))


@case(everywhere=True)
def loss_that_refers_to_a_layer() -> Training:
    training = regression("mse")
    first = training.model.layers[0]

    def loss(y: Any, predicted: Any) -> Any:
        return ops.mean((y - predicted) ** 2, axis=-1) + 0.1 * ops.sum(first.kernel**2)

    return replace(training, settings=training.settings | {"loss": loss})


@case()
def loss_label_smoothing() -> Training:
    training = classification()
    hot = keras.utils.to_categorical(training.y, 3)
    settings = {**training.settings, "loss": losses.CategoricalCrossentropy(label_smoothing=0.2)}
    return replace(training, y=hot, settings=settings)


@case()
def loss_binary_from_logits() -> Training:
    training = regression(losses.BinaryCrossentropy(from_logits=True), metrics=["binary_accuracy"])
    return replace(training, y=classes(2, 1))


@case()
def loss_reduced_by_sum() -> Training:
    return regression(losses.MeanSquaredError(reduction="sum"))


@case()
def loss_given_to_the_trainer() -> Training:
    training = regression(losses.LogCosh())
    return replace(training, settings=training.settings | {"metrics": ["mae"]}, to_trainer=True)


@case()
def loss_added_to_a_functional_model() -> Training:
    """No loss in `compile`, all of it in the layers."""

    class Distance(layers.Layer):
        def call(self, inputs: Any) -> Any:
            y, predicted = inputs
            self.add_loss(ops.mean((y - predicted) ** 2))
            return predicted

    x, y = keras.Input((6,), name="x"), keras.Input((1,), name="y")
    model = keras.Model([x, y], Distance()([y, layers.Dense(1)(x)]))
    return Training(model, [numbers(6), targets(1)], targets(1), {"optimizer": sgd()})


@case()
def class_weights() -> Training:
    return classification(class_weight={0: 1.0, 1: 5.0, 2: 0.2})


@case()
def sample_weights() -> Training:
    return classification(sample_weight=numbers() + 1)


@case(everywhere=True)
def sample_weights_of_timesteps() -> Training:
    inputs = keras.Input((8,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.Embedding(20, 4)(inputs)))
    x = ids(20, 8)
    settings = {
        "optimizer": sgd(),
        "loss": "sparse_categorical_crossentropy",
        "weighted_metrics": ["accuracy"],
    }
    return Training(model, x, classes(5, 8), settings, sample_weight=(x > 5).astype("float32"))


@case()
def sample_weights_of_each_output() -> Training:
    inputs = keras.Input((5,))
    heads = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(1, name="b")(inputs)}
    return Training(
        keras.Model(inputs, heads),
        numbers(5),
        {"a": targets(1), "b": -targets(1)},
        {"optimizer": sgd(), "loss": {"a": "mse", "b": "mae"}},
        sample_weight={"a": numbers() + 1, "b": 1 - numbers()},
    )
