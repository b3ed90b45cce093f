"""An input or output of a model, as a plain record that travels without Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a Keras model.

    Attributes:
        name: the name of its layer.
        shape: shape of one row, without the batch; `None` for an unknown length, or for an unknown shape.
        dtype: Keras's name of the type.
        key: the name under which the model takes or gives it in a dict; `None` in a list or alone.
        batch: rows per minibatch, if the model fixes them.
        size: number of ids, from 0, for which the model has an embedding; `None` if it has none.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"
    key: str | None = None
    batch: int | None = None
    size: int | None = None


def fixed_batch(inputs: Iterable[TensorSpec]) -> int | None:
    """Return the batch size that the inputs of a model fix; `None` for any size."""
    return next((spec.batch for spec in inputs if spec.batch is not None), None)
