"""Small data and settings that the cases share. Always the same: every call begins its generator anew."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

ROWS = 32
"""Four minibatches of 8. A partial one would be compiled too, in every case."""


def numbers(*shape: int, rows: int = ROWS) -> npt.NDArray[np.float32]:
    """Features, shape (rows, *shape), between -1 and 1."""
    return np.random.default_rng(0).uniform(-1, 1, (rows, *shape)).astype(np.float32)


def targets(*shape: int, rows: int = ROWS) -> npt.NDArray[np.float32]:
    """Numbers to learn, shape (rows, *shape)."""
    return np.random.default_rng(1).uniform(-1, 1, (rows, *shape)).astype(np.float32)


def classes(count: int, *shape: int, rows: int = ROWS) -> npt.NDArray[np.int32]:
    """Classes below `count`, shape (rows, *shape)."""
    return np.random.default_rng(2).integers(0, count, (rows, *shape)).astype(np.int32)


def ids(count: int, length: int, rows: int = ROWS) -> npt.NDArray[np.int32]:
    """Sequences of ids below `count`, shape (rows, length); 0, the padding, at their ends."""
    random = np.random.default_rng(3)
    found = random.integers(1, count, (rows, length)).astype(np.int32)
    found[np.arange(length)[None] >= random.integers(2, length + 1, (rows, 1))] = 0
    return found


def sgd(**options: Any) -> keras.optimizers.SGD:
    """SGD with momentum: an optimizer with a state that amplifies no rounding."""
    return keras.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.5} | options)


def mlp(*, inputs: int = 6, outputs: int = 3) -> keras.Model:
    """The model of cases that are about something else."""
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(outputs, activation="softmax"),
        ]
    )
