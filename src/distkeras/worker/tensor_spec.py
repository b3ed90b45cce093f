"""What a model takes or gives, as a plain record that travels without Keras."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a Keras model.

    Attributes:
        name: the name of its layer.
        shape: of one row, without the batch; `None` stands for an unknown length, or for an unknown shape.
        dtype: as Keras names it.
        key: the name under which the model takes or gives it in a dict; `None` where it stands in a list or
            alone.
        batch: rows of a minibatch, where the model fixes them.
        size: ids from 0 that the model has an embedding for; `None` where it does not look them up.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str = "float32"
    key: str | None = None
    batch: int | None = None
    size: int | None = None


def fixed_batch(inputs: Iterable[TensorSpec]) -> int | None:
    """Return the rows of a minibatch that the inputs of a model fix; `None`: it may be any number."""
    return next((spec.batch for spec in inputs if spec.batch is not None), None)
