"""Find the form of new rows: Spark ML vectors, and sequences of unknown length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from distkeras.worker.columns import Column, integer_limits
from distkeras.worker.padding import Padding
from distkeras.worker.tensor_spec import TensorSpec

DENSE = 1
"""The `type` of a dense Spark ML vector; that of a sparse one is 0."""


DENSE_BYTES = 32 * 2**20
"""Maximum bytes of sparse vectors that are made dense at once."""


def rows_at_once(columns: Sequence[pa.Array], batch_size: int) -> int:
    """Return the number of rows of `columns` to process together: all, or as many as may be made dense.

    A batch of ten thousand sparse vectors of a million numbers each would take 80 GB.
    """
    vectors = [column for column in columns if pa.types.is_struct(column.type)]
    longest = max((pc.max(column.field("size")).as_py() or 0 for column in vectors), default=0)
    num_rows = max((len(column) for column in columns), default=0)
    if longest * 8 * num_rows <= DENSE_BYTES:
        return max(1, num_rows)
    size = max(1, DENSE_BYTES // (8 * longest))
    # Whole minibatches, so that the model gets the same minibatches as without this limit.
    return size - size % batch_size if size > batch_size else size


def without_vectors(column: pa.Array) -> pa.Array:
    """Return `column` with Spark ML vectors converted to lists of double."""
    if not pa.types.is_struct(column.type) or column.null_count:
        return column
    dense = column.field("type").to_numpy() == DENSE
    if dense.all():
        return column.field("values")
    sizes = column.field("size").fill_null(0).to_numpy()
    lengths = np.where(dense, pc.list_value_length(column.field("values")).to_numpy(), sizes)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    numbers = np.zeros(offsets[-1])
    values = column.field("values")
    indices = column.field("indices")
    for row in range(len(column)):
        own = numbers[offsets[row] : offsets[row + 1]]
        own[slice(None) if dense[row] else indices[row].values.to_numpy()] = values[row].values.to_numpy()
    return pa.ListArray.from_arrays(pa.array(offsets).cast(pa.int32()), pa.array(numbers))


def equal_lengths(batch: pa.RecordBatch, inputs: Sequence[TensorSpec]) -> list[npt.NDArray[np.int64]]:
    """Return groups of row indices that can be stacked; one group if all rows can.

    Rows may differ only in inputs for which the model leaves a length open.
    """
    every = np.arange(batch.num_rows)
    lengths = [
        _lengths(column)
        for column, spec in zip(batch.columns, inputs, strict=True)
        if spec.shape is None or None in spec.shape
    ]
    known = [length for length in lengths if length is not None]
    if not known or not batch.num_rows:
        return [every]
    _, group = np.unique(np.stack(known, axis=1), axis=0, return_inverse=True)
    group = group.reshape(-1)
    return [every[group == index] for index in range(group.max() + 1)]


def column_of(spec: TensorSpec, name: str, column: pa.Array) -> Column:
    """Return the form of the rows of `column` for the input `spec`; its first row gives unknown lengths.

    Raises:
        ValueError: the row does not determine the unknown lengths.
    """
    shape = spec.shape
    if shape is None or None in shape:
        found = _found(column)
        shape = found if shape is None else _resolved(shape, found, name)
    limits = integer_limits(spec.dtype)
    return Column(name, tuple(length or 0 for length in shape), spec.dtype, spec.key, limits=limits)


def sequences_of(spec: TensorSpec, name: str, padding: Padding) -> Column:
    """Return the form of rows that are padded for the input `spec`."""
    step = (spec.shape or (None,))[1:]
    if None in step:
        raise ValueError(
            f"Column {name!r}: expected an input with only the first length open, for `pad_to`. "
            f"Received: input {spec.name!r} of shape {spec.shape}"
        )
    shape = (padding.to or 1, *(length or 1 for length in step))
    return Column(name, shape, spec.dtype, spec.key, padding, limits=integer_limits(spec.dtype))


def _resolved(shape: tuple[int | None, ...], found: tuple[int, ...], name: str) -> tuple[int, ...]:
    if len(found) == len(shape):
        return tuple(have if length is None else length for length, have in zip(shape, found, strict=True))
    known = math.prod(length for length in shape if length is not None)
    if shape.count(None) > 1 or not known or math.prod(found) % known:
        raise ValueError(
            f"Column {name!r} has rows of {' x '.join(map(str, found)) or 'a single'} value(s). Expected "
            f"shape {shape}: arrays nested {len(shape)} deep, which determine its unknown lengths."
        )
    return tuple(math.prod(found) // known if length is None else length for length in shape)


def _found(column: pa.Array) -> tuple[int, ...]:
    """Return the lengths of the first row, level by level."""
    first: Any = column[0]
    if isinstance(first, pa.BinaryScalar | pa.LargeBinaryScalar):
        return (len(first.as_py()),)
    lengths: list[int] = []
    while isinstance(first, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        lengths.append(len(first.values))
        first = first.values[0] if len(first.values) else None
    return tuple(lengths)


def _lengths(column: pa.Array) -> npt.NDArray[Any] | None:
    """Return the length of each row; None for single values."""
    types = pa.types
    if types.is_binary(column.type) or types.is_large_binary(column.type):
        return np.asarray(pc.binary_length(column).to_numpy())
    if types.is_list(column.type) or types.is_large_list(column.type):
        return np.asarray(pc.list_value_length(column).to_numpy())
    return None
