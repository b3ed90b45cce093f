"""Arrow record batches as NumPy arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from distkeras.worker.columns import Column, Columns, nesting
from distkeras.worker.decode import decode


def columns(shape: tuple[int, ...], dtype: str = "float32") -> Columns:
    return Columns((Column("x", shape, dtype),))


def batch(array: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([array], names=["x"])


PAIRS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)], ids=str
)
def test_lists_are_read_without_a_copy_even_from_a_slice(kind: pa.DataType) -> None:
    array = pa.array(PAIRS, kind)
    rows = decode(batch(array.slice(1, 2)), columns((2,)))["x"]
    assert rows.tolist() == PAIRS[1:3]
    assert np.shares_memory(rows, array.values.to_numpy())


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)], ids=str)
def test_bytes_are_read_without_a_copy_even_from_a_slice(kind: pa.DataType) -> None:
    array = pa.array([b"ab", b"cd", b"ef"], kind)
    rows = decode(batch(array.slice(1, 2)), columns((2, 1)))["x"]
    assert rows.dtype == np.uint8
    assert rows.tobytes() == b"cdef"
    assert np.shares_memory(rows, np.frombuffer(array.buffers()[-1], np.uint8))


def test_nested_lists_fill_the_shape_level_by_level() -> None:
    grid = [[[1, 2], [3, 4], [5, 6]]]
    array = pa.array(grid * 3, pa.list_(pa.list_(pa.int32()))).slice(1)
    assert decode(batch(array), columns((3, 2, 1)))["x"].tolist() == [[1, 2, 3, 4, 5, 6]] * 2


@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (pa.array([1, 2, 3], pa.int32()), [[1], [2], [3]]),
        (pa.array([0, 1.5], pa.float64()), [[0.0], [1.5]]),
        (pa.array([True, False]), [[True], [False]]),
        (pa.array(["to", "be"]), [["to"], ["be"]]),
        (pa.array([], pa.list_(pa.float32())), []),
        (pa.array([], pa.binary()), []),
    ],
)
def test_scalars_and_no_rows_at_all(array: pa.Array, rows: list[list[object]]) -> None:
    assert decode(batch(array), columns((1,)))["x"].tolist() == rows


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (pa.array([[1.0, 2.0], [3.0]]), (2,), "row 101: found 1 values, expected 2 (shape (2,))"),
        (pa.array([b"abcd", b"abc"]), (2, 2), "row 101: found 3 values, expected 4 (shape (2, 2))"),
        (pa.array([b"abc"], pa.binary(3)), (2,), "row 100: found 3 values, expected 2"),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2)), (3,), "row 100: found 2 values, expected 3"),
        (pa.array([[[1, 2], [3, 4]], [[1, 2], [3]]]), (2, 2), "row 101: found 1 values, expected 2"),
        (pa.array([1.0, None]), (1,), "row 101: found a null, expected a value"),
        (pa.array([[1.0], None]), (1,), "row 101: found a null, expected a value"),
        (pa.array([[1.0, 1.0], [1.0, None]]), (2,), "row 101: found a null inside the array"),
        (pa.array([1.0]), (2,), "row 100: found a single value, expected 2 values"),
        (pa.array([[[1.0]]]), (5, 5, 5), "row 100: found an array nested 2 deep"),
    ],
)
def test_row_that_does_not_fit_is_named(array: pa.Array, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match="Column 'x', partition 3, ") as caught:
        decode(batch(array), columns(shape), partition=3, first_row=100)
    assert message in str(caught.value)


def test_missing_column_and_unusable_type_are_named() -> None:
    with pytest.raises(ValueError, match=r"Expected a column 'x'\. Received: \['z'\]"):
        decode(pa.record_batch([pa.array([1])], names=["z"]), columns((1,)))
    with pytest.raises(TypeError, match=r"Column 'x': expected numbers.* Received: date32"):
        decode(batch(pa.array([0], pa.date32())), columns((1,)))


def test_nesting_ignores_lengths_of_one_and_a_flat_array_fills_any_shape() -> None:
    assert nesting((28, 28, 1), 1) == (784,)
    assert nesting((28, 28, 1), 2) == (28, 28)
    assert nesting((28, 28, 1), 3) == (28, 28, 1)
    assert nesting((28, 28, 1), 4) is None
