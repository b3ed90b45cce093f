"""Modules of other libraries inside a Keras model."""

from __future__ import annotations

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
