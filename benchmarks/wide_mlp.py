"""The model and the rows of the benchmarks that measure what goes around a training."""

from __future__ import annotations

import keras
import numpy as np


def model(optimizer: str) -> keras.Model:
    """Return a compiled MLP of 784-500-500-10, the same at every call."""
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(500, activation="relu"),
            keras.layers.Dense(500, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    made.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def data(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features, shape (rows, 784), and the place of the largest of their first ten."""
    x = np.random.default_rng(seed).random((rows, 784), np.float32)
    return x, (x[:, :10].argmax(1)).astype("int32")
