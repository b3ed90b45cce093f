"""Other types than float32, for the whole model and for one layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import keras
from keras import layers
from registry import Training, case
from samples import numbers, sgd, targets

HALF = 2e-3
"""Sums of 16-bit numbers depend on their order."""


@contextlib.contextmanager
def policy(name: str) -> Iterator[None]:
    """Make layers of this policy."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def regression(*inner: keras.Layer, optimizer: keras.optimizers.Optimizer | None = None) -> Training:
    """Return the training of a regression."""
    model = keras.Sequential([keras.Input((6,)), *inner, layers.Dense(1, dtype="float32")])
    return Training(model, numbers(6), targets(1), {"optimizer": optimizer or sgd(), "loss": "mse"})


@case(tolerance=HALF)
def mixed_float16_with_loss_scaling() -> Training:
    """`compile` wraps the optimizer in one that scales the loss."""
    with policy("mixed_float16"):
        return regression(layers.Dense(8, activation="tanh"), layers.BatchNormalization())


@case(tolerance=HALF, still=lambda: keras.optimizers.LossScaleOptimizer(sgd(learning_rate=0.0)))
def mixed_float16_own_scale() -> Training:
    with policy("mixed_float16"):
        scaled = keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=64.0, dynamic_growth_steps=3)
        return regression(layers.Dense(8, activation="tanh"), optimizer=scaled)


@case(tolerance=HALF)
def mixed_float16_without_scaling() -> Training:
    with policy("mixed_float16"):
        training = regression(layers.Dense(8, activation="tanh"))
    return replace(training, settings={**training.settings, "auto_scale_loss": False})


@case(tolerance=HALF * 8)
def mixed_bfloat16() -> Training:
    with policy("mixed_bfloat16"):
        return regression(layers.Dense(8, activation="tanh"))


@case(tolerance=HALF * 8)
def weights_of_bfloat16() -> Training:
    with policy("bfloat16"):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(backends=("tensorflow", "torch"))
def float64_policy() -> Training:
    """JAX has no float64 unless it is asked for as a whole."""
    with policy("float64"):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(backends=("tensorflow", "torch"), everywhere=True)
def float64_layer() -> Training:
    return regression(layers.Dense(8, activation="tanh", dtype="float64"))


@case(tolerance=HALF * 8)
def policies_by_the_paths_of_layers() -> Training:
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    policies["paths/half"] = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    inner = [layers.Dense(8, activation="tanh", dtype=policies, name=name) for name in ("half", "whole")]
    model = keras.Sequential([keras.Input((6,)), *inner, layers.Dense(1)], name="paths")
    assert [layer.compute_dtype for layer in inner] == ["bfloat16", "float32"]
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})
