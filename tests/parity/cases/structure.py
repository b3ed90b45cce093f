"""Several inputs and outputs, shared layers, models in models, subclasses."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd, targets


@case()
def several_inputs_in_a_list() -> Training:
    first, second = keras.Input((4,)), keras.Input((3,))
    model = keras.Model([first, second], layers.Dense(1)(layers.Concatenate()([first, second])))
    return Training(model, [numbers(4), numbers(3)], targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def inputs_by_name() -> Training:
    wide, tokens = keras.Input((4,), name="wide"), keras.Input((5,), dtype="int32", name="tokens")
    embedded = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4)(tokens))
    model = keras.Model(
        {"wide": wide, "tokens": tokens}, layers.Dense(1)(layers.Multiply()([wide, embedded]))
    )
    data = {"wide": numbers(4), "tokens": ids(9, 5)}
    return Training(model, data, targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def several_outputs() -> Training:
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    heads = [
        layers.Dense(1, name="number")(hidden),
        layers.Dense(3, activation="softmax", name="kind")(hidden),
    ]
    settings = {
        "optimizer": sgd(),
        "loss": ["mse", "sparse_categorical_crossentropy"],
        "loss_weights": [0.3, 1.0],
        "metrics": [["mae"], ["accuracy"]],
    }
    return Training(keras.Model(inputs, heads), numbers(5), [targets(1), classes(3)], settings)


@case(everywhere=True)
def outputs_by_name() -> Training:
    inputs = keras.Input((5,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    heads = {"number": layers.Dense(1, name="number")(hidden), "kind": layers.Dense(3, name="kind")(hidden)}
    settings = {
        "optimizer": sgd(),
        "loss": {"number": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        "loss_weights": {"number": 0.5, "kind": 2.0},
        "metrics": {"number": ["mae"], "kind": ["sparse_categorical_accuracy"]},
    }
    data = {"number": targets(1), "kind": classes(3)}
    return Training(keras.Model(inputs, heads), numbers(5), data, settings)


@case()
def shared_layer() -> Training:
    first, second = keras.Input((4,)), keras.Input((4,))
    tower = layers.Dense(5, activation="tanh")
    model = keras.Model([first, second], layers.Dot(1)([tower(first), tower(second)]))
    return Training(
        model, [numbers(4), numbers(4)[::-1].copy()], targets(1), {"optimizer": sgd(), "loss": "mse"}
    )


@case()
def nested_models() -> Training:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(5), layers.BatchNormalization()], name="inner")
    middle = keras.Sequential([keras.Input((4,)), inner, layers.Dense(4)], name="middle")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()([middle(inputs), inputs])))
    return Training(model, numbers(4), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def tied_weights() -> Training:
    """`ReversibleEmbedding` uses one matrix at both ends."""
    inputs = keras.Input((5,), dtype="int32")
    embedding = layers.ReversibleEmbedding(9, 6)
    model = keras.Model(inputs, embedding(layers.Dense(6)(embedding(inputs)), reverse=True))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return Training(model, ids(9, 5), ids(9, 5), {"optimizer": sgd(), "loss": loss})


class Perceptron(keras.Model):
    """A subclassed model, its layers in a list and its own arguments in its configuration."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.hidden = [layers.Dense(units, activation="tanh"), layers.Dense(units)]
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        for layer in self.hidden:
            inputs = layer(inputs)
        return self.head(self.norm(inputs, training=training))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@case()
def subclassed() -> Training:
    model = Perceptron(5)
    model(numbers(4)[:1])
    return Training(model, numbers(4), targets(1), {"optimizer": sgd(), "loss": "mse"})


class Twins(keras.Model):
    """A subclassed model of an input by name, that returns a dict."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.left, self.right = layers.Dense(2), layers.Dense(1)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"left": self.left(inputs["one"]), "right": self.right(inputs["two"])}


@case()
def subclassed_of_dicts() -> Training:
    model = Twins()
    x = {"one": numbers(4), "two": numbers(3)}
    model({name: rows[:1] for name, rows in x.items()})
    y = {"left": targets(2), "right": targets(1)}
    return Training(model, x, y, {"optimizer": sgd(), "loss": {"left": "mse", "right": "mae"}})
