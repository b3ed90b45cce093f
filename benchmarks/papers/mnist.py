"""MNIST for two of the figures: a small MLP, whose inner optimizer is Adam or plain gradient descent."""

from __future__ import annotations

import functools

from grid.running import rows

from distkeras.simulation import KerasProblem

BATCH_SIZE = 32


@functools.cache
def problem(adam: bool) -> KerasProblem:
    """Build the model, an MLP 784-64-10 with ReLU."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((784,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    return KerasProblem(
        keras.Sequential(layers),
        *rows("train"),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=BATCH_SIZE,
        optimizer=keras.optimizers.Adam(0.001) if adam else None,
        validation=rows("test"),
        metrics=["sparse_categorical_accuracy"],
    )
