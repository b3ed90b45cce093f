"""Frozen layers and variables, wherever they lie."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from registry import Training, case
from samples import ids, numbers, sgd, targets

from cases.attention import attending


class Block(layers.Layer):
    """A layer of layers, whose flags its configuration does not hold."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.a, self.b = layers.Dense(6, name="a"), layers.Dense(6, name="b")
        self.norm = layers.BatchNormalization()

    def build(self, shape: Any) -> None:
        for layer in (self.a, self.b, self.norm):
            layer.build(shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.norm(self.b(self.a(inputs)), training=training)


class Transfer(keras.Model):
    """A base that is frozen and a head that learns."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.base, self.mid, self.head = layers.Dense(6), layers.Dense(6), layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.head(self.mid(self.base(inputs)))


def training_of(model: keras.Model) -> Training:
    """Return the training of a regression."""
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


def sequential(*inner: keras.Layer) -> keras.Model:
    """Return a model of `inner` and a head."""
    return keras.Sequential([keras.Input((6,)), *inner, layers.Dense(1)])


@case()
def frozen_layer() -> Training:
    return training_of(sequential(layers.Dense(6, trainable=False), layers.Dense(5)))


@case()
def frozen_after_the_layers_were_called() -> Training:
    model = sequential(layers.Dense(6), layers.Dense(6))
    model.layers[1].trainable = False
    return training_of(model)


@case(everywhere=True)
def frozen_part_of_a_layer() -> Training:
    block = Block()
    model = sequential(block)
    block.a.trainable = False
    return training_of(model)


@case(everywhere=True)
def frozen_part_of_a_subclass() -> Training:
    model = Transfer()
    model(numbers(6)[:1])
    model.base.trainable = False
    return training_of(model)


@case(everywhere=True)
def frozen_kernel() -> Training:
    model = sequential(layers.Dense(6), layers.Dense(6))
    model.layers[0].kernel.trainable = False
    return training_of(model)


@case()
def frozen_bias_of_one_and_kernel_of_another() -> Training:
    model = sequential(layers.Dense(6), layers.Dense(6))
    model.layers[0].bias.trainable = False
    model.layers[1].kernel.trainable = False
    return training_of(model)


@case()
def frozen_batch_norm() -> Training:
    """Keras runs it in inference mode: its statistics stay."""
    model = sequential(layers.Dense(6), layers.BatchNormalization())
    norm = model.layers[1]
    norm.moving_mean.assign(norm.moving_mean + 0.3)
    norm.trainable = False
    return training_of(model)


@case()
def frozen_batch_norm_in_a_layer() -> Training:
    block = Block()
    model = sequential(block)
    block.norm.trainable = False
    return training_of(model)


@case()
def frozen_gamma_of_batch_norm() -> Training:
    """The variable does not learn; the statistics go on."""
    model = sequential(layers.Dense(6), layers.BatchNormalization())
    model.layers[1].gamma.trainable = False
    return training_of(model)


@case()
def frozen_projection_of_attention() -> Training:
    attention = layers.MultiHeadAttention(2, 4)
    training = attending(attention)
    attention._key_dense.trainable = False
    return training


@case()
def frozen_nested_model() -> Training:
    base = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.BatchNormalization()], name="base")
    model = sequential(base, layers.Dense(4))
    base.trainable = False
    return training_of(model)


@case()
def frozen_layer_of_a_nested_model() -> Training:
    base = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dense(6)], name="base")
    model = sequential(base)
    base.layers[0].trainable = False
    return training_of(model)


@case()
def frozen_half_of_bidirectional() -> Training:
    both = layers.Bidirectional(layers.GRU(4))
    model = keras.Sequential([keras.Input((4, 3)), both, layers.Dense(1)])
    both.backward_layer.trainable = False
    return Training(model, numbers(4, 3), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def frozen_embedding_given_weights() -> Training:
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), layers.Embedding(9, 4), layers.Flatten(), layers.Dense(1)]
    )
    model.layers[0].set_weights([numbers(4, rows=9)])
    model.layers[0].trainable = False
    return Training(model, ids(9, 5), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def layer_thawed_in_a_frozen_model() -> Training:
    """All frozen, then one layer of it not: the usual way to fine-tune the last ones."""
    base = keras.Sequential([keras.Input((6,)), layers.Dense(6), layers.Dense(6)], name="base")
    base.trainable = False
    base.layers[1].trainable = True
    base.trainable = True
    base.layers[0].trainable = False
    return training_of(sequential(base))
