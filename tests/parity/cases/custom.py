"""Layers of the user's own, with states that are no weights, and activations that have no name."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from registry import Training, case
from samples import numbers, sgd, targets


class Counting(layers.Layer):
    """Counts its calls in training: an integer that is no weight of any optimizer."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, name="calls"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.calls.assign(self.calls + 1)
        return inputs * (1 + 0.01 * ops.cast(self.calls, inputs.dtype))


class Drifting(layers.Layer):
    """Keeps a running mean of its inputs: a float that is not trained."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(inputs, axis=0))
        return (inputs - self.mean) * self.scale


class Flagged(layers.Layer):
    """Keeps a boolean and an unsigned integer."""

    def build(self, shape: Any) -> None:
        self.seen = self.add_weight(shape=(), dtype="bool", initializer="zeros", trainable=False, name="seen")
        self.rows = self.add_weight(
            shape=(2,), dtype="uint8", initializer="zeros", trainable=False, name="rows"
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            self.seen.assign(ops.logical_not(self.seen))
            self.rows.assign(self.rows + ops.cast(3, "uint8"))
        return inputs


class Drawing(layers.Layer):
    """Draws noise of a seed generator of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.generator = keras.random.SeedGenerator(11)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            return inputs + 0.1 * keras.random.normal(ops.shape(inputs), seed=self.generator)
        return inputs


class Penalized(layers.Layer):
    """Adds to the loss."""

    def call(self, inputs: Any) -> Any:
        self.add_loss(0.1 * ops.mean(ops.square(inputs)))
        return inputs


class Calling(layers.Layer):
    """One layer is called in training alone, and one never."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.always = layers.Dense(5)
        self.training_alone = layers.Dense(5)
        self.never = layers.Dense(7)

    def call(self, inputs: Any, training: bool = False) -> Any:
        outputs = self.always(inputs)
        return outputs + self.training_alone(inputs) if training else outputs


def regression(*inner: keras.Layer) -> Training:
    """Return the training of a regression through the layers `inner`."""
    model = keras.Sequential([keras.Input((6,)), layers.Dense(5), *inner, layers.Dense(1)])
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(everywhere=True)
def state_of_integers() -> Training:
    return regression(Counting())


@case()
def state_of_flags_and_bytes() -> Training:
    return regression(Flagged())


@case()
def state_of_floats() -> Training:
    return regression(Drifting())


@case()
def seed_generator_of_its_own() -> Training:
    return regression(Drawing())


@case()
def loss_added_by_a_layer() -> Training:
    return regression(Penalized())


@case(everywhere=True)
def activation_lambda() -> Training:
    return regression(layers.Dense(4, activation=lambda t: ops.relu(t) ** 2))


def squared(inputs: Any) -> Any:
    """An activation that is not registered."""
    return ops.square(inputs)


@case()
def activation_function() -> Training:
    return regression(layers.Dense(4, activation=squared))


@case()
def lambda_layer() -> Training:
    return regression(layers.Lambda(lambda t: t * 0.5 + 0.1))


@case()
def initializer_and_regularizer_functions() -> Training:
    def halves(shape: Any, dtype: Any = None) -> Any:
        return ops.full(shape, 0.5, dtype)

    layer = layers.Dense(4, kernel_initializer=halves, kernel_regularizer=lambda w: 0.01 * ops.sum(w**2))
    return regression(layer)


class Twofold(layers.Layer):
    """Its weights have the same name: two variables that a path cannot tell apart."""

    def build(self, shape: Any) -> None:
        self.first = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.second = self.add_weight(shape=(shape[-1],), initializer="zeros", name="scale")

    def call(self, inputs: Any) -> Any:
        return inputs * self.first + self.second


@case(backends=("jax", "tensorflow"))
def two_weights_of_one_name() -> Training:
    """On PyTorch Keras knows parameters by path: the gradient of one of the two is never set to zero."""
    return regression(Twofold())


class Wrapped(layers.Layer):
    """Takes a layer, and an object that Keras cannot write as text."""

    def __init__(self, inner: keras.Layer, scale: Any, **options: Any) -> None:
        super().__init__(**options)
        self.inner, self.scale = inner, scale

    def call(self, inputs: Any) -> Any:
        return self.scale(self.inner(inputs))


class Scale:
    """No class of Keras's kind."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, value: Any) -> Any:
        return value * self.factor


@case()
def layer_that_keras_cannot_serialize() -> Training:
    return regression(Wrapped(layers.Dense(4), Scale(0.5)))


@case(everywhere=True)
def layers_that_are_not_always_called() -> Training:
    training = regression(Calling())
    training.model(keras.ops.zeros((1, 6)), training=True)  # `fit` on JAX makes no weights.
    return training


class Incomplete(layers.Layer):
    """Its configuration names none of its attributes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factor, self.shifts, self.function = 1.0, [0.0, 0.0], ops.tanh
        self.table = {"first": np.ones(5, "float32")}

    def call(self, inputs: Any) -> Any:
        table = ops.convert_to_tensor(self.table["first"])
        return self.function(inputs * self._factor + self.shifts[1]) * table

    def get_config(self) -> Any:
        return super().get_config()


class Shaking(layers.Layer):
    """Draws from the process's generators: Keras's, NumPy's and Python's."""

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        scale = np.random.rand() + random.random()
        return inputs + 0.1 * scale * keras.random.normal(ops.shape(inputs))


@case(backends=("torch",), everywhere=True)
def numbers_drawn_without_a_seed() -> Training:
    """Compiled code would draw once, or on JAX refuse to."""
    return regression(Shaking())


@case(everywhere=True)
def attributes_that_no_configuration_names() -> Training:
    layer = Incomplete()
    layer._factor, layer.shifts = 0.5, [0.0, 0.25]
    layer.table["first"][:] = np.linspace(0, 1, 5)
    layer.function = lambda t: ops.sin(t) * layer._factor
    return regression(layer)


@case()
def methods_replaced_on_a_layer_and_on_the_model() -> Training:
    layer = layers.Dense(4)
    training = regression(layer)
    call, compute_loss = layer.call, training.model.compute_loss
    layer.call = lambda *arguments, **named: ops.tanh(call(*arguments, **named))
    training.model.compute_loss = lambda *arguments, **named: 0.5 * compute_loss(*arguments, **named)
    return training


@case()
def regularizer_and_constraint_set_on_weights() -> Training:
    layer = layers.Dense(4, bias_regularizer="l2", bias_constraint="non_neg")
    training = regression(layer)
    layer.kernel.regularizer = keras.regularizers.L2(0.1)
    layer.kernel.constraint = keras.constraints.MaxNorm(0.5)
    layer.bias.regularizer = layer.bias.constraint = None
    return training
