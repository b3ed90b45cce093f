"""The columns of a DataFrame that feed the inputs and outputs of a model, and their form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.padding import Padding
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec

RAW = "raw"
"""The type of a column that the user's code receives unconverted."""


@dataclass(frozen=True)
class Column:
    """A column of the prepared DataFrame, and the form in which the model gets it.

    Attributes:
        name: generated name in the prepared DataFrame, so that the user's name may be any.
        shape: shape of one row, as the model takes it.
        dtype: NumPy's name of the type that the model gets, or `"string"`.
        key: the name under which the model takes the column in a dict; `None` for a list or a single input.
        padding: how rows of different lengths are padded; the first length of `shape` is then that of the
            longest row.
        mask: whether the model gets the padding mask in place of the rows.
        source: the user's name of the column, for messages; default: `name`.
        parts: the user's names of the columns that were combined, each with its count of numbers in a row;
            empty for a single column.
        finite: whether NaN and infinity are rejected.
        limits: the least and the greatest number accepted; `None` for no limits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    key: str | None = None
    padding: Padding | None = None
    mask: bool = False
    source: str = ""
    parts: tuple[tuple[str, int], ...] = ()
    finite: bool = False
    limits: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """The user's name of the column."""
        return self.source or self.name

    def title_at(self, element: int) -> str:
        """Return the user's name of the column that holds element `element` of a row."""
        for name, width in self.parts:
            if element < width:
                return name
            element -= width
        return self.title

    @property
    def width(self) -> int:
        """Number of elements in one row."""
        return math.prod(self.shape)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The NumPy type that the model gets: strings have type object."""
        if self.dtype == RAW:
            return np.dtype(np.uint8)
        return np.dtype(object if self.dtype == "string" else self.dtype)


@dataclass(frozen=True)
class Columns:
    """The columns that a worker trains on, in the order of the model's inputs and outputs.

    Attributes:
        features: one column for each input.
        labels: one column for each output, or none.
        sample_weights: none; one, for every output; or one for each output, `None` where all rows count 1.
        class_weight: weight of a row by its label, for a single label column.
        raw: columns that `preprocess` receives, each with the shape of its longest row in bytes.
        preprocess: makes the features, and the labels and weights that have no columns here.
        may_change: the part of the rows' plan that may give other rows each time; `None` if none is known.
    """

    features: tuple[Column, ...]
    labels: tuple[Column, ...] = ()
    sample_weights: tuple[Column | None, ...] = ()
    class_weight: ClassWeight | None = None
    raw: tuple[Column, ...] = ()
    preprocess: Preprocess | None = None
    may_change: str | None = None

    @property
    def all(self) -> tuple[Column, ...]:
        """Features, labels, weights and raw columns."""
        features = (column for column in self.features if not column.mask)
        return (*features, *self.labels, *(weight for weight in self.sample_weights if weight), *self.raw)

    def with_masks(self, inputs: Sequence[TensorSpec]) -> Columns:
        """Return the columns with a mask in place of each of `inputs` that no column feeds."""
        fed = iter(self.features)
        by_mask = {column.padding.mask: column for column in reversed(self.features) if column.padding}
        features = []
        for spec in inputs:
            source = by_mask.get(spec.key or spec.name)
            if source is None:
                features.append(next(fed))
            else:
                features.append(replace(source, dtype=spec.dtype, key=spec.key, mask=True))
        return replace(self, features=tuple(features))

    def renamed(self, names: Mapping[str, str]) -> Columns:
        """Return the columns under other names in the prepared DataFrame, given by the old ones."""

        def new(column: Column) -> Column:
            return replace(column, name=names[column.name], source=column.title)

        return replace(
            self,
            features=tuple(map(new, self.features)),
            labels=tuple(map(new, self.labels)),
            sample_weights=tuple(column and new(column) for column in self.sample_weights),
            raw=tuple(map(new, self.raw)),
        )

    @property
    def by_name(self) -> dict[str, Column]:
        """The columns to read, by name; a column that feeds both an input and an output is listed once."""
        return {column.name: column for column in reversed(self.all)}


def nesting(shape: tuple[int, ...], depth: int) -> tuple[int, ...] | None:
    """Return the lengths, level by level, of an array nested `depth` deep that fills `shape`.

    A flat array fills any shape; a nested one must have the shape's own lengths, except for lengths of 1.
    `None` if no array of this depth fills it.
    """
    if depth == 1:
        return (math.prod(shape),)
    if depth == len(shape):
        return shape
    longer_than_one = tuple(length for length in shape if length != 1)
    return longer_than_one if depth == len(longer_than_one) else None


def integer_limits(dtype: str) -> tuple[int, int] | None:
    """Return the least and the greatest number of an integer type; `None` for other types."""
    if not dtype.startswith(("int", "uint")):
        return None
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
