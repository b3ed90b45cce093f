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


@case(backends=("torch",), everywhere=True)
def torch_module_of_a_class_of_the_script() -> Training:
    """PyTorch cannot save such a module by the name of its class. Two layers share a weight."""
    import torch

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
            self.other.weight = self.one.weight
            self.normalized = torch.nn.BatchNorm1d(4)

        def forward(self, x: Any) -> Any:
            return self.normalized(torch.tanh(self.one(x) + self.other(2 * x)))

    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.TorchModuleWrapper(Net(), output_shape=(None, 4)),
            layers.Dense(2, activation="softmax"),
        ]
    )
    x = numbers(3)
    model(x[:4], training=False)
    return Training(model, x, classes(2), {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"})


def halved(gradient: Any) -> Any:
    return gradient / 2


def convolutions() -> Training:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Conv2D(3, 2),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    settings = {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    return Training(model, numbers(6, 6, 3), classes(2), settings)


@case(backends=("torch",), everywhere=True)
def hooks_of_torch_on_layers_and_weights() -> Training:
    training = convolutions()
    first, second, _, last = training.model.layers
    first.register_forward_hook(lambda layer, given, output: output / 2)
    second.register_forward_pre_hook(lambda layer, given: tuple(2 * each for each in given))
    last.register_full_backward_hook(lambda layer, given, output: tuple(map(halved, given)))
    second.kernel.value.register_hook(halved)
    return training


@case(backends=("torch",), everywhere=True)
def weights_of_torch_in_another_layout_and_without_gradients() -> Training:
    import torch

    training = convolutions()
    training.model.to(memory_format=torch.channels_last)
    training.model.layers[0].bias.value.requires_grad_(False)
    return training
