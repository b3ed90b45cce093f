"""Rows of any length: texts, bytes, and arrays that differ from row to row."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]


class Ragged:
    """Rows of any length, in one Arrow array, indexed by row like a NumPy array.

    Args:
        array: numbers, booleans, strings, bytes, or lists of them, nested or not, without a null.
    """

    def __init__(self, array: pa.Array) -> None:
        wide = _wide(array.type)
        self.array = array if array.type == wide else array.cast(wide)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Ragged:
        if isinstance(rows, slice):
            first, end, _ = rows.indices(len(self.array))
            return Ragged(self.array.slice(first, max(0, end - first)))
        return Ragged(self.array.take(pa.array(rows)))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of elements in each row, shape (rows,), for rows that are lists."""
        lengths: npt.NDArray[np.int64] = np.diff(self.array.offsets.to_numpy())
        return lengths

    @property
    def values(self) -> Array:
        """The elements of all rows, concatenated, for rows that are lists of numbers or strings."""
        return _numpy(self.array.flatten())

    def objects(self) -> Array:
        """Return a Python object for each row, shape (rows,): str, bytes, or an array (of arrays)."""
        rows = np.empty(len(self), object)
        rows[:] = _objects(self.array)
        return rows

    def buffers(self) -> list[Array]:
        """Return arrays for `of_buffers`; corresponding arrays of several pieces can be concatenated."""
        return list(_buffers(self.array))

    @classmethod
    def of_buffers(cls, kind: pa.DataType, num_rows: int, buffers: Sequence[Any]) -> Ragged:
        """Return the rows of type `kind` that `buffers` holds, without copying them."""
        return cls(_array(kind, num_rows, iter(buffers)))


def join(parts: Sequence[Array | Ragged]) -> Array | Ragged:
    """Return the rows of `parts`, of one type, concatenated."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], Ragged):
        return Ragged(pa.concat_arrays([part.array for part in parts if isinstance(part, Ragged)]))
    return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])


def _wide(kind: pa.DataType) -> pa.DataType:
    """Return `kind` with 64-bit offsets, so that a partition of any size fits."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.large_list(_wide(kind.value_type))
    return kind


def _is_flat(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_string(kind) or pa.types.is_large_binary(kind))


def _numpy(array: pa.Array) -> Array:
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _objects(array: pa.Array) -> list[Any]:
    if not pa.types.is_large_list(array.type):
        return list(array.to_pylist())
    offsets = array.offsets.to_numpy()
    offsets = offsets - offsets[:1]
    values = array.flatten()
    inner: Any = Ragged(values).objects() if pa.types.is_large_list(values.type) else _numpy(values).copy()
    return [inner[first:end] for first, end in itertools.pairwise(offsets)]


def _buffers(array: pa.Array) -> Iterator[Array]:
    """Yield lengths instead of offsets, followed by the values."""
    if _is_flat(array.type):
        _, offset_buffer, data = array.buffers()
        offsets = np.zeros(1, np.int64)
        if len(array):
            offsets = np.frombuffer(offset_buffer, np.int64)[array.offset : array.offset + len(array) + 1]
        yield np.diff(offsets)
        yield np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    elif pa.types.is_large_list(array.type):
        yield np.diff(array.offsets.to_numpy())
        yield from _buffers(array.flatten())
    else:
        yield _numpy(array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array)


def _array(kind: pa.DataType, length: int, buffers: Iterator[Any]) -> pa.Array:
    data = next(buffers)
    if not _is_flat(kind) and not pa.types.is_large_list(kind):
        if pa.types.is_boolean(kind):
            return _array(pa.uint8(), length, iter([data])).cast(kind)
        return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(data)])
    lengths = np.frombuffer(data, np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    head = [None, pa.py_buffer(offsets)]
    if _is_flat(kind):
        return pa.Array.from_buffers(kind, length, [*head, pa.py_buffer(next(buffers))])
    inner = _array(kind.value_type, int(offsets[-1]), buffers)
    return pa.Array.from_buffers(kind, length, head, children=[inner])
