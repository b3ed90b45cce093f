"""What counts as a Keras model."""

from __future__ import annotations

from typing import Any

import keras

TRAINER = next(base for base in keras.Model.__mro__ if base.__name__ == "Trainer")
"""The class that gives `keras.Model` its `compile` and `fit`, on every backend."""


def is_model(value: Any) -> bool:
    """Whether `value` is a `keras.Model`, or another layer with the methods of Keras's trainer."""
    return isinstance(value, keras.Layer) and isinstance(value, TRAINER)


def is_of_keras(found: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return package_of(found) == "keras"


def package_of(found: Any) -> str:
    """Return the package that a class or function belongs to; "" if it does not say."""
    return str(getattr(found, "__module__", None) or "").partition(".")[0]
