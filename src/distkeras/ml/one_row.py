"""Prediction of one row on the driver, as Spark's own models predict one vector."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from distkeras.worker.signature import model_signature


def num_features(model: keras.Model) -> int:
    """Return how many numbers a row of the only input has; -1 for several inputs or an unknown shape."""
    inputs, _ = model_signature(model)
    shape = inputs[0].shape if len(inputs) == 1 else None
    lengths = [length for length in shape or () if length is not None]
    return -1 if shape is None or len(lengths) < len(shape) else math.prod(lengths)


def output_of_row(model: keras.Model, value: Any) -> npt.NDArray[np.float64]:
    """Return the numbers of the only output of `model` for one row.

    Args:
        model: a model with one input.
        value: a Spark ML vector, or an array of numbers; flat values are reshaped to the input's shape.

    Raises:
        ValueError: the model has several inputs, or `value` does not fill the input.
    """
    inputs, _ = model_signature(model)
    if len(inputs) != 1:
        raise ValueError(
            f"Expected a model with one input, to predict one vector. Use `transform` instead. "
            f"Received: {len(inputs)} inputs"
        )
    (spec,) = inputs
    row = np.asarray(value.toArray() if hasattr(value, "toArray") else value)
    if spec.shape is not None:
        row = _filling(row, spec.shape)
    x = row.astype(spec.dtype)[np.newaxis]
    output = model.predict_on_batch(x if spec.key is None else {spec.key: x})
    (only,) = keras.tree.flatten(output)
    return np.asarray(only, np.float64).reshape(-1)


def _filling(row: npt.NDArray[Any], shape: tuple[int | None, ...]) -> npt.NDArray[Any]:
    known = math.prod(length for length in shape if length is not None)
    free = shape.count(None)
    if row.ndim == len(shape) and all(n in (None, have) for n, have in zip(shape, row.shape, strict=True)):
        return row
    if free > 1 or (row.size % known if free else row.size != known):
        raise ValueError(
            f"Expected a vector that fills the input of shape {shape}. Received: values of shape {row.shape}"
        )
    return row.reshape([-1 if length is None else length for length in shape])
