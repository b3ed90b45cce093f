"""Modules of other libraries inside a Keras model."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from registry import Training, case
from samples import classes, numbers, sgd


@case(backends=("torch",), everywhere=True)
def torch_module_with_buffers() -> Training:
    """BatchNorm's running statistics are buffers of the module, not weights of Keras."""
    import torch

    keras.config.enable_unsafe_deserialization()
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.ReLU())
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.TorchModuleWrapper(net, output_shape=(None, 4)),
            layers.Dense(2, activation="softmax"),
        ]
    )
    x = numbers(3) * 3 + 5
    model(x[:4], training=False)
    return Training(model, x, classes(2), {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"})


class Scaled(layers.Layer):
    """Keras cannot save it, so that the whole model is copied by value."""

    def __init__(self, factor: Any, **options: Any) -> None:
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        return inputs * self.factor()


@case(backends=("torch",), everywhere=True)
def torch_module_beside_a_class_that_keras_cannot_save() -> Training:
    training = torch_module_with_buffers()
    inputs, wrapped, last = keras.Input((3,)), *training.model.layers
    wrapped.module[0].bias.requires_grad = False  # Keras then has it behind the other weights.
    again = layers.TorchModuleWrapper(wrapped.module, output_shape=(None, 4))
    model = keras.Sequential([inputs, Scaled(lambda: 0.5), again, last])
    model(training.x[:4], training=False)
    return Training(model, training.x, training.y, training.settings)
