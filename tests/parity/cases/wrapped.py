"""Modules of other libraries inside a Keras model."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers
from registry import Training, case
from samples import classes, numbers, sgd, targets


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


def scaled(params: Any, inputs: Any) -> Any:
    """A function of JAX with parameters."""
    return inputs * params["scale"] + params["shift"]


def scaled_parameters(rng: Any, inputs: Any) -> Any:
    """Its first parameters."""
    import jax.numpy as jnp

    return {"scale": jnp.ones(inputs.shape[-1:]), "shift": jnp.zeros(inputs.shape[-1:])}


@case(backends=("jax",))
def jax_layer() -> Training:
    layer = keras.layers.JaxLayer(scaled, init_fn=scaled_parameters)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4), layer, layers.Dense(1)])
    return Training(model, numbers(5), targets(1), {"optimizer": sgd(), "loss": "mse"})
