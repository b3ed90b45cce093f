"""Rows of different lengths: filled up in each minibatch, every row once, in the promised order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import Column, Columns
from distkeras.worker.decode import decode
from distkeras.worker.feed import Feed
from distkeras.worker.padding import Padding, padding_of
from distkeras.worker.ragged import Ragged

LONGEST = 20
FREE = Padding(mask="mask")
TOKENS = Column("tokens", (LONGEST,), "int32", padding=FREE)
TAGS = Column("tags", (LONGEST,), "int32", padding=FREE)
ROW = Column("row", (), "int32")


@pytest.fixture(autouse=True)
def spool_on_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_DIRS", str(tmp_path))


def length_of(row: int) -> int:
    return row * 7 % (LONGEST + 1)


def batches(num_rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """Row i has tokens i + 1 and tags 2 * i, as often as `length_of` says; one of `size` rows each."""
    for first in range(0, num_rows, size):
        rows = range(first, min(num_rows, first + size))
        tokens = pa.array([[row + 1] * length_of(row) for row in rows], pa.list_(pa.int32()))
        tags = pa.array([[2 * row] * length_of(row) for row in rows], pa.list_(pa.int32()))
        yield pa.record_batch([tokens, tags, pa.array(rows, pa.int32())], names=["tokens", "tags", "row"])


def rows_of(minibatch: Any) -> list[int]:
    """The rows of a minibatch; all that belongs to each is looked at."""
    tokens, mask, rows = minibatch.x
    lengths = np.array([length_of(row) for row in rows])
    own = np.arange(tokens.shape[1]) < lengths[:, None]
    assert tokens.shape[1] == FREE.length(max(lengths))
    assert np.array_equal(mask, own)
    assert np.array_equal(tokens, np.where(own, rows[:, None] + 1, 0))
    assert np.array_equal(minibatch.y, np.where(own, 2 * rows[:, None], 0))
    assert np.array_equal(minibatch.sample_weight, own)
    return list(rows)


@settings(deadline=None, max_examples=30)
@given(
    num_rows=st.integers(0, 60),
    size=st.integers(1, 25),
    batch_size=st.integers(1, 9),
    shuffle=st.booleans(),
    window=st.integers(1, 30),
    memory=st.sampled_from([0, 2**20]),
)
def test_every_row_comes_once_an_epoch_in_an_order_that_a_restarted_worker_repeats(
    num_rows: int, size: int, batch_size: int, shuffle: bool, window: int, memory: int
) -> None:
    columns = Columns((TOKENS, replace(TOKENS, mask=True, dtype="bool"), ROW), (TAGS,))

    def feed(size: int) -> Feed:
        return Feed(
            batches(num_rows, size),
            columns,
            batch_size=batch_size,
            partition=0,
            shuffle=shuffle,
            window_bytes=window * 40,
            memory_bytes=memory,
        )

    with feed(size) as one, feed(num_rows or 1) as other:
        for epoch in range(3):
            minibatches = [rows_of(minibatch) for minibatch in one.epoch(epoch)]
            rows = [row for minibatch in minibatches for row in minibatch]
            assert sorted(rows) == list(range(num_rows))
            assert shuffle or rows == list(range(num_rows))
            assert all(len(minibatch) == batch_size for minibatch in minibatches[:-1])
            assert [rows_of(minibatch) for minibatch in other.epoch(epoch, 1)] == minibatches[1:]


@pytest.mark.parametrize(
    ("padding", "longest", "length"),
    [
        (5, 3, 5),
        ("longest", 1, 8),
        ("longest", 9, 16),
        ("longest", 64, 64),
        ([4, 10], 4, 4),
        ([4, 10], 5, 10),
        (Padding(buckets=(4, 10), truncate=True), 99, 10),
    ],
)
def test_lengths_are_rounded_up_as_the_padding_says(padding: Any, longest: int, length: int) -> None:
    assert padding_of(padding).length(longest) == length


@pytest.mark.parametrize("given", [0, True, -1, 1.5, "shortest", [], [4, 4], [8, 4], [0, 4], None], ids=repr)
def test_a_padding_that_says_no_length_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="Received"):
        padding_of(given)


def test_options_of_a_padding_that_exclude_each_other_are_refused() -> None:
    for options in ({"to": 4, "buckets": (4,)}, {"truncate": True}):
        with pytest.raises(ValueError, match="Received"):
            Padding(**options)


def first(batch: pa.RecordBatch, columns: Columns) -> Any:
    with Feed(iter([batch]), columns, batch_size=100, partition=3) as feed:
        (now,), (later,) = feed.epoch(0), feed.epoch(1)
    assert str(now) == str(later)
    return now


@pytest.mark.parametrize(
    ("array", "shape", "expected"),
    [
        (
            pa.array([[[1, 2], [3, 4]], [], [[5, 6]]]),
            (4, 2),
            [[1, 2, 3, 4, 9, 9], [9] * 6, [5, 6, 9, 9, 9, 9]],
        ),
        (pa.array([[1, 2, 3, 4], [], [5, 6]]), (4, 2), [[1, 2, 3, 4, 9, 9], [9] * 6, [5, 6, 9, 9, 9, 9]]),
        (pa.array([[1, 2], [], [3]]), (3, 1), [[1, 2, 9], [9] * 3, [3, 9, 9]]),
        (pa.array([b"\x01\x02", b"", b"\x03"]), (3,), [[1, 2, 9], [9] * 3, [3, 9, 9]]),
        (pa.array([[1, 2, 3, 4], [], [5]]), (3,), [[1, 2, 3], [9] * 3, [5, 9, 9]]),
    ],
    ids=["nested", "flat", "ones", "bytes", "cut"],
)
def test_steps_of_any_shape_are_filled_up_or_cut(array: Any, shape: Any, expected: Any) -> None:
    # A slice of a longer array, as Arrow hands them on.
    array = pa.concat_arrays([array, array]).slice(2, 3).take(pa.array([1, 2, 0]))
    column = Column("x", shape, "float32", padding=Padding(to=3, truncate=True, value=9))
    x = first(pa.record_batch([array], names=["x"]), Columns((column,))).x
    assert x.dtype == np.float32
    assert x.shape == (3, 3, *shape[1:])
    assert x.reshape(3, -1).tolist() == expected


def test_weights_of_rows_and_classes_multiply_those_of_steps() -> None:
    batch = pa.record_batch({"x": [[1.0], [1.0, 2.0]], "y": [[1], [0, 1]], "w": [2.0, 3.0], "z": [0.0, 1.0]})
    padding = Padding(to=3)
    x, y = Column("x", (3,), "float32", padding=padding), Column("y", (3,), "int32", padding=padding)
    weight = Column("w", (), "float32")
    assert first(batch, Columns((x,), (y,), (weight,))).sample_weight.tolist() == [[2, 0, 0], [3, 3, 0]]
    both = first(batch, Columns((x,), (replace(y, key="y"), Column("z", (), "float32", "z")), (weight,)))
    assert {key: part.tolist() for key, part in both.sample_weight.items()} == {
        "y": [[2, 0, 0], [3, 3, 0]],
        "z": [2, 3],
    }
    steps = pa.record_batch({"x": batch["x"], "y": batch["y"], "w": [[0.5], [2.0, 3.0]]})
    weight = Column("w", (3,), "float32", padding=padding)
    assert first(steps, Columns((x,), (y,), (weight,))).sample_weight.tolist() == [[0.5, 0, 0], [2, 3, 0]]
    classes = ClassWeight.of({1: 4.0})
    weighed = first(batch, Columns((x,), (Column("z", (), "float32"),), (), classes))
    assert weighed.sample_weight.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (pa.array([[1], [1, 2, 3]]), (2,), "row 11: found 3 steps, expected at most 2"),
        (pa.array([[1], None]), (2,), "row 11: found a null"),
        (pa.array([[1], [1, None]]), (2,), "row 11: found a null inside the array"),
        (pa.array([[[1, 2]], [[1, 2], [3]]]), (2, 2), "row 11: found 1 values, expected 2"),
        (pa.array([[1, 2], [1]]), (2, 2), "row 11: found 1 values, expected a multiple of 2"),
        (pa.array([1, 2]), (2,), "row 10: found a single value"),
    ],
    ids=["long", "null", "null inside", "inner", "no multiple", "single"],
)
def test_a_row_that_cannot_be_filled_up_is_named(array: Any, shape: Any, message: str) -> None:
    columns = Columns((Column("x", shape, "float32", padding=Padding(to=2)),))
    with pytest.raises(ValueError, match=f"Column 'x', partition 1, {message}"):
        decode(pa.record_batch([array], names=["x"]), columns, partition=1, first_row=10)


def test_stack_joins_rows_as_the_feed_does() -> None:
    stacked = Padding(buckets=(2, 4), value=-1).stack([[1, 2, 3], [], [4]], np.int16)
    assert stacked.dtype == np.int16
    assert stacked.tolist() == [[1, 2, 3, -1], [-1] * 4, [4, -1, -1, -1]]
    assert Padding(to=2).stack([np.ones((1, 3))]).shape == (1, 2, 3)
    for rows in ([[1, 2, 3]], []):
        with pytest.raises(ValueError, match="at most 2 steps"):
            Padding(to=2).stack(rows)


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["a", "", "ñü"]),
        pa.array([b"\x00\xff", b"", b"a"]),
        pa.array([[1, 2], [], [3]]),
        pa.array([[True], [], [False, True]]),
        pa.array([["a", "bc"], [], [""]]),
        pa.array([[[1.5], [2, 3]], [], [[]]]),
        pa.array([], pa.string()),
        pa.array([], pa.list_(pa.int64())),
    ],
    ids=lambda array: str(array.type),
)
def test_rows_of_any_length_survive_their_buffers(array: pa.Array) -> None:
    rows = Ragged(pa.concat_arrays([array, array]).slice(1, len(array)))
    again = Ragged.of_buffers(rows.array.type, len(rows), [np.array(part) for part in rows.buffers()])
    assert again.array.equals(rows.array)
    assert [str(value) for value in again.objects()] == [str(value) for value in rows.objects()]


def test_long_rows_are_shuffled_in_windows_of_a_few_bytes_whatever_the_partition() -> None:
    length, num_batches, rows = 2**12, 64, 16
    values = np.arange(length * rows, dtype=np.float32)
    every = pa.array(np.arange(len(values)))
    offsets = np.arange(rows + 1, dtype=np.int32) * length

    def long_rows() -> Iterator[pa.RecordBatch]:
        for _ in range(num_batches):
            array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values).take(every))
            yield pa.record_batch([array], names=["x"])

    before = largest = pa.total_allocated_bytes()
    column = Column("x", (length,), "float32", padding=Padding(to=length))
    options: dict[str, Any] = {"shuffle": True, "num_epoch": 1, "prefetch": False, "window_bytes": 2**20}
    with Feed(long_rows(), Columns((column,)), batch_size=8, partition=0, **options) as feed:
        for _ in feed.epoch(0):
            largest = max(largest, pa.total_allocated_bytes())
    assert largest - before < 6 * 2**20
    assert num_batches * rows * length * 4 == 16 * 2**20
