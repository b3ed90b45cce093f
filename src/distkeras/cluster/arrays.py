"""Present arrays in memory, as a Keras user has them, as a table that Arrow can stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.cluster.validate import Names, Weights

Array = npt.NDArray[Any]

BATCH_BYTES = 16 * 2**20
"""Approximate bytes of rows that are converted to Arrow at a time, for arrays of any size."""


@dataclass(frozen=True)
class Roles:
    """The roles of columns.

    Attributes:
        features_col: as in a trainer.
        label_col: as in a trainer.
        sample_weight_col: as in a trainer.
        shapes: shape of one row, for columns of flattened rows.
    """

    features_col: Names
    label_col: Names | None = "label"
    sample_weight_col: Weights = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class ArrayTable:
    """Arrays of equal numbers of rows, as columns; data is only copied when it is streamed.

    Args:
        arrays: arrays of shape (rows, ...), by column name. Rows of more than one number become lists; rows
            of uint8 become bytes.

    Raises:
        ValueError: the arrays differ in their number of rows, or one is a single number without rows.
        TypeError: an array holds neither numbers, booleans nor strings.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = {name: _as_array(name, array) for name, array in arrays.items()}
        self.shapes = {name: array.shape[1:] for name, array in self._arrays.items() if array.ndim > 2}
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"Expected arrays with equal numbers of rows. Received: rows={lengths}")
        self.num_rows = next(iter(lengths.values()))
        row_bytes = sum(array[:1].nbytes for array in self._arrays.values())
        self.nbytes = row_bytes * self.num_rows
        self._batch = max(1, BATCH_BYTES // max(1, row_bytes))

    @property
    def names(self) -> list[str]:
        """Names of the columns, in order."""
        return list(self._arrays)

    def read(self, first: int, end: int) -> pa.RecordBatchReader:
        """Return a stream of the rows from `first` up to, but without, `end`."""
        schema = self._rows(0, 0).schema

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(first, end, self._batch):
                yield self._rows(start, min(end, start + self._batch))

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _rows(self, first: int, end: int) -> pa.RecordBatch:
        columns = {name: _column(array[first:end]) for name, array in self._arrays.items()}
        return pa.RecordBatch.from_pydict(columns)


def of_tuple(given: tuple[Any, ...]) -> tuple[ArrayTable, Roles]:
    """Return a table of `(x, y)` or `(x, y, sample_weight)`, as for `keras.Model.fit`, with its roles.

    Args:
        given: `x` and `y` are an array, a list of arrays in the model's order, or a dict by the names of its
            inputs or outputs; `y` may be `None`, and so may parts of `sample_weight`.

    Raises:
        ValueError: another number of parts, or as `ArrayTable`.
        TypeError: as `ArrayTable`.
    """
    arrays, roles = named_parts(given)
    table = ArrayTable(arrays)
    return table, replace(roles, shapes=table.shapes)


def named_parts(given: tuple[Any, ...]) -> tuple[dict[str, Any], Roles]:
    """Return the arrays of `(x, y, sample_weight)` by column name, and their roles.

    Raises:
        ValueError: another number of parts.
    """
    if not 1 <= len(given) <= 3:
        raise ValueError(
            f"Expected a tuple (x, y) or (x, y, sample_weight). Received: a tuple of {len(given)} parts"
        )
    x, y, weight = (*given, None, None)[:3]
    arrays, features = _named(x, "x")
    labels: Names | None = None
    weights: Weights = None
    if y is not None:
        more, labels = _named(y, "y")
        arrays |= more
    if weight is not None:
        more, weights = _named_weights(weight)
        arrays |= more
    return arrays, Roles(features, labels, weights)


def _named(part: Any, name: str) -> tuple[dict[str, Any], Names]:
    """Return the arrays of `part` by column name, and these names in the form that a trainer takes."""
    if isinstance(part, Mapping):
        columns = {key: f"{name} {key}" for key in part}
        return {columns[key]: array for key, array in part.items()}, columns
    if isinstance(part, list | tuple) and all(hasattr(array, "shape") for array in part):
        names = [f"{name} {index}" for index in range(len(part))]
        return dict(zip(names, part, strict=True)), names
    return {name: part}, name


def _named_weights(part: Any) -> tuple[dict[str, Any], Weights]:
    """Return the arrays of sample weights by column name, and these names in the form for a trainer."""
    if isinstance(part, Mapping):
        arrays, names = _named(
            {key: array for key, array in part.items() if array is not None}, "sample_weight"
        )
        return arrays, names
    if isinstance(part, list | tuple) and any(hasattr(array, "shape") for array in part):
        given = [None if array is None else f"sample_weight {index}" for index, array in enumerate(part)]
        return {name: array for name, array in zip(given, part, strict=True) if name is not None}, given
    return {"sample_weight": part}, "sample_weight"


def _as_array(name: str, given: Any) -> Array:
    array = np.asarray(given)
    if array.ndim == 0:
        raise ValueError(f"Expected an array with one row per sample as {name!r}. Received: {given!r}")
    if array.dtype.kind not in "biufUO":
        raise TypeError(
            f"Expected numbers, booleans or strings in the array {name!r}. Received: dtype={array.dtype}"
        )
    return array


def _column(rows: Array) -> pa.Array:
    if rows.dtype == np.float16:
        rows = rows.astype(np.float32)  # Spark has no half precision.
    if rows.dtype.kind in "UO":
        flat = pa.array(rows.ravel().tolist(), pa.string())
    elif rows.dtype == np.uint8 and rows.ndim > 1:
        return _bytes(np.ascontiguousarray(rows))
    else:
        flat = pa.array(np.ascontiguousarray(rows).ravel())
    if rows.ndim == 1:
        return flat
    width = int(np.prod(rows.shape[1:]))
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(rows) + 1) * width), flat)


def _bytes(rows: npt.NDArray[np.uint8]) -> pa.Array:
    width = int(np.prod(rows.shape[1:]))
    offsets = pa.py_buffer(np.arange(len(rows) + 1) * width)
    return pa.Array.from_buffers(pa.large_binary(), len(rows), [None, offsets, pa.py_buffer(rows)])
