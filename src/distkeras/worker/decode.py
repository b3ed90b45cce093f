"""Convert Arrow record batches to NumPy arrays without a copy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.worker.columns import RAW, Column, Columns, nesting
from distkeras.worker.images import HEAD_BYTES, image_hint
from distkeras.worker.ragged import Ragged

Table = dict[str, npt.NDArray[Any] | Ragged]
"""Rows by column name, in the type in which they arrive: arrays of shape (rows, numbers in a row), or
`Ragged` where rows differ in length."""


def decode(batch: pa.RecordBatch, columns: Columns, *, partition: int = 0, first_row: int = 0) -> Table:
    """Return the rows of `batch` as views of its memory (booleans and strings are copied).

    Errors name the user's columns.

    Args:
        batch: has at least `columns`, each a number, a list of numbers (nested or not), bytes, or strings.
        columns: the columns to read.
        partition: index of the partition, for errors.
        first_row: number of earlier rows of the partition, for errors.

    Raises:
        ValueError: a column is missing; a value is null, or not finite or outside the limits where the column
            requires it; or a row has another length than the model takes.
        TypeError: the type of a column holds no numbers.
    """
    table: Table = {}
    for column in columns.by_name.values():
        index = batch.schema.get_field_index(column.name)
        if index < 0:
            raise ValueError(f"Expected a column {column.name!r}. Received: {batch.schema.names}")
        location = _Location(column, partition, first_row)
        rows = batch.column(index)
        if column.dtype == RAW:
            table[column.name] = _as_they_are(rows, location)
        elif column.padding is not None:
            table[column.name] = _sequences(rows, location)
        else:
            numbers = _rows(rows, location)
            location.legal(numbers.reshape(-1))
            table[column.name] = numbers
    return table


class _Location:
    """The position in the data that an error message reports."""

    def __init__(
        self,
        column: Column,
        partition: int,
        first_row: int,
        ends: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.column = column
        self.partition = partition
        self.first_row = first_row
        self._ends = ends  # Cumulative row lengths, if values are indexed by element.

    def fault(self, row: int, found: str, expected: str, element: int | None = None) -> ValueError:
        if self._ends is not None:
            row = int(np.searchsorted(self._ends, row, side="right"))
        name = self.column.title if element is None else self.column.title_at(element)
        return ValueError(
            f"Column {name!r}, partition {self.partition}, row {self.first_row + row}: "
            f"found {found}, expected {expected}."
        )

    def no_nulls(self, array: pa.Array, per_row: int) -> None:
        """Reject an array with a null; `per_row` elements make a row."""
        if array.null_count:
            row, element = divmod(int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))), per_row)
            what = "a null" if per_row == 1 and self._ends is None else "a null inside the array"
            whole = self._ends is None and per_row == self.column.width
            raise self.fault(
                row, what, "a value: drop or fill the nulls before training", element if whole else None
            )

    def uniform_bytes(self, offsets: npt.NDArray[Any], data: pa.Buffer) -> None:
        """Reject bytes whose length is not that of the shape; the error says if they are an image file."""
        wrong = np.diff(offsets) != self.column.width
        if wrong.any():
            row = int(np.argmax(wrong))
            found = data[int(offsets[row]) : int(offsets[row + 1])]
            hint = image_hint(found[:HEAD_BYTES].to_pybytes())
            raise self.fault(
                row, f"{found.size} values", f"{self.column.width} (shape {self.column.shape}){hint}"
            )

    def legal(self, numbers: npt.NDArray[Any]) -> None:
        """Reject a number that the model cannot take; the rows of `numbers` are concatenated."""
        if self.column.finite and numbers.dtype.kind == "f" and not _is_finite(numbers):
            raise self._illegal(
                numbers, ~np.isfinite(numbers), "a finite number: drop these rows, or fill them"
            )
        limits = self.column.limits
        if limits is not None and numbers.size and numbers.dtype.kind in "fiu":
            low, high = limits
            if numbers.min() < low or numbers.max() > high:
                raise self._illegal(numbers, (numbers < low) | (numbers > high), f"{low} to {high}")

    def _illegal(self, numbers: npt.NDArray[Any], wrong: npt.NDArray[Any], expected: str) -> ValueError:
        index = int(np.argmax(wrong))
        if self._ends is not None:
            return self.fault(index, str(numbers[index]), expected)
        row, element = divmod(index, max(1, self.column.width))
        return self.fault(row, str(numbers[index]), expected, element)

    def uniform(self, offsets: npt.NDArray[Any], length: int, per_row: int) -> None:
        """Reject lists whose length is not `length`."""
        lengths = np.diff(offsets)
        wrong = lengths != length
        if wrong.any():
            index = int(np.argmax(wrong))
            raise self.fault(
                index // per_row, f"{lengths[index]} values", f"{length} (shape {self.column.shape})"
            )


def _rows(array: pa.Array, location: _Location) -> npt.NDArray[Any]:
    rows, width = len(array), location.column.width
    location.no_nulls(array, 1)
    if pa.types.is_fixed_size_binary(array.type) or _is_binary(array.type):
        return _bytes(array, location).reshape(rows, width)
    depth, leaf_type = 0, array.type
    while _is_list(leaf_type):
        depth, leaf_type = depth + 1, leaf_type.value_type
    if depth == 0 and width != 1 and rows:
        raise location.fault(0, "a single value", f"{width} values (shape {location.column.shape})")
    lengths = nesting(location.column.shape, depth) if depth else ()
    if lengths is None:
        raise location.fault(
            0, f"an array nested {depth} deep", f"one that fills shape {location.column.shape}"
        )
    per_row = 1
    for length in lengths:
        array = _flatten(array, length, per_row, location)
        per_row *= length
        location.no_nulls(array, per_row)
    return _numbers(array, location).reshape(rows, width)


def _as_they_are(array: pa.Array, location: _Location) -> npt.NDArray[Any] | Ragged:
    """Return rows of any type, unconverted."""
    location.no_nulls(array, 1)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type):
        return _numbers(array, location).reshape(-1, 1)
    return Ragged(array)


def _sequences(array: pa.Array, location: _Location) -> Ragged:
    """Return rows with any number of steps, as flat lists of numbers."""
    column = location.column
    location.no_nulls(array, 1)
    rows = _lists(array, location)
    lengths, values = rows.lengths, rows.array.flatten()
    step = math.prod(column.shape[1:])
    within = _Location(column, location.partition, location.first_row, np.cumsum(lengths))
    within.no_nulls(values, 1)
    if _is_list(values.type):
        values = _steps(values, within)
        lengths = lengths * step
    wrong = lengths % step != 0
    if wrong.any():
        row = int(np.argmax(wrong))
        raise location.fault(row, f"{lengths[row]} values", f"a multiple of {step} (shape {column.shape})")
    longest = int(lengths.max(initial=0)) // step
    if column.padding is not None and column.padding.too_long(longest):
        row = int(lengths.argmax())
        raise location.fault(row, f"{longest} steps", f"at most {column.padding.limit}, as `pad_to` says")
    _Location(column, location.partition, location.first_row, np.cumsum(lengths)).legal(
        _numbers(values, location)
    )
    return Ragged.of_buffers(pa.large_list(values.type), len(array), [lengths, *Ragged(values).buffers()])


def _lists(array: pa.Array, location: _Location) -> Ragged:
    """Return rows of bytes or arrays as lists."""
    if _is_binary(array.type):
        return Ragged.of_buffers(pa.large_list(pa.uint8()), len(array), Ragged(array).buffers())
    if not _is_list(array.type):
        raise location.fault(0, "a single value", "an array of any length, for `pad_to`")
    return Ragged(array)


def _steps(values: pa.Array, within: _Location) -> pa.Array:
    """Return the numbers of steps that are arrays, all of the shape that the model takes."""
    shape, depth, leaf_type = within.column.shape, 0, values.type
    while _is_list(leaf_type):
        depth, leaf_type = depth + 1, leaf_type.value_type
    inner = nesting(shape[1:], depth)
    if inner is None:
        raise within.fault(0, f"an array nested {depth + 1} deep", f"one that fills shape {shape}")
    per_step = 1
    for length in inner:
        values = _flatten(values, length, per_step, within)
        per_step *= length
        within.no_nulls(values, per_step)
    return values


def _flatten(array: pa.Array, length: int, per_row: int, location: _Location) -> pa.Array:
    """Return the elements of the lists in `array`, each of which must have length `length`."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        location.uniform(np.array([0, size] if len(array) else []), length, per_row)
        return array.values.slice(array.offset * size, len(array) * size)
    # `offsets` respects the slice of the array; `values` does not.
    offsets = array.offsets.to_numpy()
    location.uniform(offsets, length, per_row)
    return array.values.slice(offsets[0], offsets[-1] - offsets[0])


def _bytes(array: pa.Array, location: _Location) -> npt.NDArray[np.uint8]:
    rows, width = len(array), location.column.width
    if rows == 0:
        return np.empty(0, np.uint8)
    if pa.types.is_fixed_size_binary(array.type):
        size = array.type.byte_width
        location.uniform_bytes(np.array([0, size]), array.buffers()[1])
        return np.frombuffer(array.buffers()[1], np.uint8, rows * size, array.offset * size)
    wide = pa.types.is_large_binary(array.type)
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
    offsets = offsets[array.offset : array.offset + rows + 1]
    location.uniform_bytes(offsets, data)
    return np.frombuffer(data, np.uint8, rows * width, offsets[0]) if width else np.empty(0, np.uint8)


def _numbers(array: pa.Array, location: _Location) -> npt.NDArray[Any]:
    kind = array.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(array.to_numpy())
    if pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(array.to_numpy(zero_copy_only=False))
    raise TypeError(
        f"Column {location.column.title!r}: expected numbers, booleans, bytes or strings. Received: {kind}"
    )


def _is_finite(rows: npt.NDArray[Any]) -> bool:
    # One pass without a copy. Only a sum that overflows needs a second pass.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(rows.sum()) or np.isfinite(rows).all())


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
