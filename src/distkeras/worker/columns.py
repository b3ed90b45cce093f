"""Which columns of a DataFrame feed which inputs and outputs of a model, and in what form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.padding import Padding
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec

RAW = "raw"
"""The type of a column that code of the user's gets as it is."""


@dataclass(frozen=True)
class Column:
    """A column of the prepared DataFrame, and the form in which the model gets it.

    Attributes:
        name: in the prepared DataFrame: a generated one, so that the user's may be any.
        shape: of one row, as the model takes it.
        dtype: NumPy's name of the type that the model gets, or `"string"`.
        key: the name under which the model takes it in a dict; `None` where it stands in a list or alone.
        padding: how rows of different lengths are filled up; the first length of `shape` is then that of the
            longest row.
        mask: whether the model gets, in place of the rows, where they are not filled up.
        source: the user's name of it, for messages; default: as `name`.
        parts: the user's names of the columns that it was put together from, and how many numbers of a row
            each gives; empty for a single one.
        finite: whether NaN and infinity are refused.
        limits: the least and the greatest number that are taken; `None`: any.
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
        """The user's name of it."""
        return self.source or self.name

    def title_at(self, element: int) -> str:
        """Return the user's name of the column that gives number `element` of a row."""
        for name, width in self.parts:
            if element < width:
                return name
            element -= width
        return self.title

    @property
    def width(self) -> int:
        """Numbers in one row."""
        return math.prod(self.shape)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The NumPy type that the model gets: strings travel as objects."""
        if self.dtype == RAW:
            return np.dtype(np.uint8)
        return np.dtype(object if self.dtype == "string" else self.dtype)


@dataclass(frozen=True)
class Columns:
    """The columns that a worker trains on, in the order of the model's inputs and outputs.

    Attributes:
        features: one for each input.
        labels: one for each output, or none.
        sample_weights: none; one, for every output; or one for each output, `None` where all rows count 1.
        class_weight: what a row counts by its label, of which there is one.
        raw: what `preprocess` is given, each of the shape of its longest row in bytes.
        preprocess: makes the features, and the labels and weights for which there are no columns here.
        may_change: what in the plan of the rows may give other rows each time; `None`: nothing that is known.
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
        """Features, labels, weights, and what is preprocessed."""
        features = (column for column in self.features if not column.mask)
        return (*features, *self.labels, *(weight for weight in self.sample_weights if weight), *self.raw)

    def with_masks(self, inputs: Sequence[TensorSpec]) -> Columns:
        """Return the columns with a mask in the place of each of `inputs` that no column feeds."""
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

    @property
    def by_name(self) -> dict[str, Column]:
        """The columns to read, by name: one that feeds both an input and an output stands once."""
        return {column.name: column for column in reversed(self.all)}


def nesting(shape: tuple[int, ...], depth: int) -> tuple[int, ...] | None:
    """Return the lengths that an array nested `depth` deep must have, level by level, to fill `shape`.

    A flat array fills any shape; a nested one must have the shape's own lengths, ones apart.
    `None`: none fills it.
    """
    if depth == 1:
        return (math.prod(shape),)
    if depth == len(shape):
        return shape
    longer_than_one = tuple(length for length in shape if length != 1)
    return longer_than_one if depth == len(longer_than_one) else None


def integer_limits(dtype: str) -> tuple[int, int] | None:
    """Return the least and the greatest number of an integer type; `None` for others."""
    if not dtype.startswith(("int", "uint")):
        return None
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)
