"""The minibatches of a partition: every row once an epoch, in the order promised, in bounded memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distkeras.worker import spool
from distkeras.worker.arrivals import SourceLost
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import Column, Columns
from distkeras.worker.feed import Feed
from distkeras.worker.minibatch import Minibatch

X = Column("x", (2,), "float32")
Y = Column("y", (), "int32")
BOTH = Columns((X,), (Y,))
ROW_BYTES = 12


def batches(num_rows: int, sizes: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Rows ([i, -i], i) in record batches of `sizes`, over and over."""
    sizes = sizes or [num_rows or 1]
    first = turn = 0
    while first < num_rows:
        rows = range(first, min(num_rows, first + sizes[turn % len(sizes)]))
        pairs = pa.array([[float(i), float(-i)] for i in rows], pa.list_(pa.float32()))
        yield pa.record_batch([pairs, pa.array(rows, pa.int32())], names=["x", "y"])
        first, turn = rows.stop, turn + 1


def labels(minibatches: Iterator[Minibatch]) -> list[int]:
    """The label of every row in turn, which says the row; the features must belong to it."""
    rows: list[int] = []
    for minibatch in minibatches:
        x: Any = minibatch.x
        y: Any = minibatch.y
        assert len(x) == len(y) == minibatch.num_samples
        assert np.array_equal(x, np.stack([y, -y], 1))
        rows += y.tolist()
    return rows


@pytest.fixture(autouse=True)
def spool_on_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_DIRS", str(tmp_path))


@settings(deadline=None, max_examples=40)
@given(
    num_rows=st.integers(0, 60),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    batch_size=st.integers(1, 20),
    start=st.integers(0, 5),
    prefetch=st.booleans(),
)
def test_unshuffled_minibatches_are_the_rows_in_order(
    num_rows: int, sizes: list[int], batch_size: int, start: int, prefetch: bool
) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "partition": 0, "prefetch": prefetch}
    with Feed(batches(num_rows, sizes), BOTH, **options) as feed:
        for epoch in (0, 1):
            minibatches = list(feed.epoch(epoch))
            assert labels(iter(minibatches)) == list(range(num_rows))
            assert all(minibatch.num_samples == batch_size for minibatch in minibatches[:-1])
        assert labels(feed.epoch(2, start)) == list(range(num_rows))[start * batch_size :]
        assert feed.num_rows == num_rows
    with Feed(batches(num_rows, sizes), BOTH, **options) as resumed:
        assert labels(resumed.epoch(0, start)) == list(range(num_rows))[start * batch_size :]


@settings(deadline=None, max_examples=40)
@given(
    num_rows=st.integers(0, 80),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
    batch_size=st.integers(1, 10),
    window=st.integers(1, 40),
    in_memory=st.booleans(),
)
def test_shuffled_minibatches_are_a_permutation_that_the_seed_decides(
    num_rows: int, sizes: list[int], batch_size: int, window: int, in_memory: bool
) -> None:
    def feed(sizes: list[int]) -> Feed:
        return Feed(
            batches(num_rows, sizes),
            BOTH,
            batch_size=batch_size,
            partition=1,
            shuffle=True,
            seed=7,
            window_bytes=window * ROW_BYTES,
            memory_bytes=2**20 if in_memory else 0,
        )

    with feed(sizes) as one, feed([num_rows or 1]) as other:
        for epoch in range(3):
            rows = labels(one.epoch(epoch))
            assert sorted(rows) == list(range(num_rows))
            # However the rows are cut into record batches, and wherever the epoch is taken up.
            assert labels(other.epoch(epoch, 1)) == rows[batch_size:]
            assert labels(one.epoch(epoch, 2)) == rows[2 * batch_size :]


def shuffled(**options: Any) -> list[int]:
    epoch = options.pop("epoch", 0)
    defaults = {"batch_size": 8, "partition": 0, "shuffle": True, "seed": 0}
    with Feed(batches(200), BOTH, **(defaults | options)) as feed:
        return labels(feed.epoch(epoch))


def test_epochs_seeds_and_partitions_have_orders_of_their_own() -> None:
    orders = [shuffled(), shuffled(epoch=1), shuffled(seed=1), shuffled(seed=-1), shuffled(partition=1)]
    assert len({tuple(order) for order in orders}) == 5
    assert shuffled(epoch=1) == orders[1]


def test_stream_is_shuffled_within_its_windows() -> None:
    rows = shuffled(window_bytes=48 * ROW_BYTES)
    windows = [rows[first : first + 48] for first in range(0, 200, 48)]
    assert [sorted(window) for window in windows] == [
        list(range(first, min(first + 48, 200))) for first in range(0, 200, 48)
    ]
    assert all(window != sorted(window) for window in windows)
    assert len({tuple(row % 48 for row in window) for window in windows}) == len(windows)


def test_partition_too_large_for_memory_is_shuffled_by_blocks_from_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distkeras.worker.feed.CHUNK_BYTES", 8 * ROW_BYTES)
    rows = shuffled(epoch=1, window_bytes=48 * ROW_BYTES, memory_bytes=0)
    window = rows[:48]
    blocks = {row // 8 for row in window}
    assert len(blocks) == 6
    assert max(blocks) - min(blocks) > 6
    assert window != sorted(window)


# --- what a minibatch holds


def test_inputs_come_alone_in_a_list_or_by_key() -> None:
    def first(columns: Columns) -> Minibatch:
        with Feed(batches(4), columns, batch_size=3, partition=0) as feed:
            return next(iter(feed.epoch(0)))

    alone = first(Columns((X,)))
    assert isinstance(alone.x, np.ndarray)
    assert (alone.y, alone.sample_weight) == (None, None)
    both = first(Columns((X, Y), (Y,), (Column("y", (), "float32"),)))
    assert isinstance(both.x, list)
    assert [part.shape for part in both.x] == [(3, 2), (3,)]
    assert both.sample_weight is not None
    assert both.sample_weight.dtype == np.float32
    keyed = first(
        Columns((Column("x", (2, 1), "float64", key="left"), Column("y", (1,), "int64", key="right")))
    )
    assert isinstance(keyed.x, dict)
    assert {key: (part.shape, str(part.dtype)) for key, part in keyed.x.items()} == {
        "left": ((3, 2, 1), "float64"),
        "right": ((3, 1), "int64"),
    }


@pytest.mark.parametrize(
    "labels",
    [[0, 1, 2, 7], [[0.0], [1.0], [2.0], [7.0]], [[0.9, 0, 0], [0, 1, 0], [0, 0.1, 0.2], [0, 1, 0]]],
    ids=["indices", "a column of them", "one-hot"],
)
def test_rows_are_weighed_by_the_class_of_their_label(labels: Any) -> None:
    weigh = ClassWeight.of({2: 4.0, 0: 0.5, -1: 9.0}).weigh(np.array(labels))
    assert weigh.dtype == np.float32
    assert weigh.tolist() == [0.5, 1, 4, 1]


def test_class_weights_multiply_sample_weights() -> None:
    columns = Columns((X,), (Y,), (Column("y", (), "float32"),), ClassWeight.of({2: 4.0}))
    with Feed(batches(4), columns, batch_size=4, partition=0) as feed:
        (minibatch,) = feed.epoch(0)
    assert minibatch.sample_weight is not None
    assert minibatch.sample_weight.tolist() == [0, 1, 8, 3]


def test_bytes_become_the_type_of_the_model_without_scaling() -> None:
    column = Columns((Column("x", (2, 2), "float32"),))
    source = pa.record_batch([pa.array([bytes([0, 1, 128, 255])] * 3, pa.binary())], names=["x"])
    with Feed(iter([source]), column, batch_size=2, partition=0) as feed:
        for epoch in range(2):
            for minibatch in feed.epoch(epoch):
                assert isinstance(minibatch.x, np.ndarray)
                assert minibatch.x.dtype == np.float32
                assert minibatch.x[0].tolist() == [[0, 1], [128, 255]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_strings_survive_the_spool(shuffle: bool) -> None:
    words = ["to", "be", "", "oder", "ñicht"] * 4
    source = [pa.record_batch([pa.array(part)], names=["x"]) for part in (words[:7], words[7:])]
    columns = Columns((Column("x", (1,), "string"),))
    with Feed(iter(source), columns, batch_size=3, partition=0, shuffle=shuffle) as feed:
        for epoch in range(2):
            found = [word for minibatch in feed.epoch(epoch) for word in np.ravel(minibatch.x)]  # type: ignore[arg-type]
            assert sorted(found) == sorted(words)
            assert shuffle or found == words


# --- streaming, resuming, stopping


def test_training_starts_before_the_last_rows_have_arrived() -> None:
    released = threading.Event()

    def slow() -> Iterator[pa.RecordBatch]:
        yield from batches(10)
        released.wait(30)
        yield from batches(10)

    with Feed(slow(), BOTH, batch_size=5, partition=0) as feed:
        minibatches = feed.epoch(0)
        assert labels(iter([next(minibatches), next(minibatches)])) == list(range(10))
        assert not released.is_set()
        released.set()
        assert labels(minibatches) == list(range(10))
        assert feed.num_rows == 20


def test_resumed_worker_that_asks_for_a_later_epoch_waits_for_all_rows() -> None:
    with Feed(batches(20, [3]), BOTH, batch_size=4, partition=0) as feed:
        assert labels(feed.epoch(2, 3)) == list(range(12, 20))
        assert labels(feed.epoch(0)) == list(range(20))


@pytest.mark.parametrize("prefetch", [False, True])
def test_epoch_left_early_loses_no_row(prefetch: bool) -> None:
    with Feed(batches(40, [3]), BOTH, batch_size=4, partition=0, prefetch=prefetch) as feed:
        next(feed.epoch(0))
        assert labels(feed.epoch(1)) == list(range(40))
        assert feed.num_rows == 40


def test_error_of_the_source_reaches_the_consumer_after_the_rows_before_it() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(8)
        raise OSError("the socket closed")

    with Feed(broken(), BOTH, batch_size=4, partition=0) as feed:
        minibatches = feed.epoch(0)
        assert labels(iter([next(minibatches), next(minibatches)])) == list(range(8))
        with pytest.raises(SourceLost, match="the socket closed"):
            next(minibatches)


def test_row_that_does_not_fit_is_named_by_its_place_in_the_partition() -> None:
    bad = pa.record_batch(
        [pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32())), pa.array([1, 1], pa.int32())],
        names=["x", "y"],
    )
    with (
        Feed(iter([*batches(10), bad]), BOTH, batch_size=4, partition=5) as feed,
        pytest.raises(ValueError, match="Column 'x', partition 5, row 11: found 1 values, expected 2"),
    ):
        list(feed.epoch(0))


def test_thread_ends_with_the_feed() -> None:
    feed = Feed(batches(4000, [10]), BOTH, batch_size=1, partition=0)
    next(feed.epoch(0))
    feed.close()
    assert "distkeras-prefetch" not in [thread.name for thread in threading.enumerate()]


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="Received: batch_size=0"):
        Feed(batches(1), BOTH, batch_size=0, partition=0)


# --- the spool


def test_one_epoch_spools_nothing_and_cannot_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool.Spool, "append", None)
    with Feed(batches(20), BOTH, batch_size=4, partition=0, num_epoch=1) as feed:
        assert labels(feed.epoch(0)) == list(range(20))
        with pytest.raises(SourceLost, match="Received: num_epoch=1, epoch=0"):
            next(feed.epoch(0))


def test_minibatches_outlive_the_feed() -> None:
    with Feed(batches(20), BOTH, batch_size=4, partition=0) as feed:
        list(feed.epoch(0))
        kept = list(feed.epoch(1))
    assert labels(iter(kept)) == list(range(20))


def test_full_disk_is_an_error_that_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=spool.RESERVE_BYTES + 100)
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda path: usage)
    with (
        Feed(batches(20), BOTH, batch_size=4, partition=0, spool_dir=str(tmp_path)) as feed,
        pytest.raises(spool.SpoolFullError, match=f"{tmp_path} has 256 MiB free .* SPARK_LOCAL_DIRS"),
    ):
        list(feed.epoch(0))


def test_disk_without_room_for_all_rows_is_an_error_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=spool.RESERVE_BYTES + 100 * ROW_BYTES)
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda path: usage)
    for num_rows in (100, 101):
        with Feed(batches(10), BOTH, batch_size=4, partition=0, num_rows=num_rows) as feed:
            error = SourceLost if num_rows == 100 else spool.SpoolFullError
            with pytest.raises(error):
                labels(feed.epoch(0))


def test_order_of_very_many_short_rows_is_drawn_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distkeras.worker.feed.CHUNK_BYTES", 8 * ROW_BYTES)
    whole = shuffled(epoch=1)
    monkeypatch.setattr("distkeras.worker.feed.ORDER_BYTES", 199 * 8)
    assert shuffled(epoch=1) != whole
    assert sorted(shuffled(epoch=1)) == list(range(200))


def test_spool_lies_where_spark_has_most_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {}
    for index, name in enumerate(["a", "b", "c"]):
        (tmp_path / name).mkdir()
        free[str(tmp_path / name)] = [5, 9, 7][index]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda path: usage._replace(free=free[path]))
    monkeypatch.delenv("LOCAL_DIRS")
    monkeypatch.setenv("SPARK_LOCAL_DIRS", ",".join(free) + ",/not/there")
    assert spool.spool_directory() == str(tmp_path / "b")


KILLED = """
import sys
import pyarrow as pa
from distkeras.worker.columns import Column, Columns
from distkeras.worker.feed import Feed
rows = pa.record_batch([pa.array(range(100000), pa.int64())], names=["x"])
columns = Columns((Column("x", (), "int64"),))
feed = Feed(iter([rows, rows]), columns, batch_size=10, partition=0, spool_dir=sys.argv[1])
list(feed.epoch(0))
next(feed.epoch(1))
print("spooled", flush=True)
sys.stdin.read()
"""


def test_killed_worker_leaves_nothing_on_disk(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "spooled\n"
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_fails_is_told_from_an_error_in_the_rows() -> None:
    def cut() -> Iterator[pa.RecordBatch]:
        yield from batches(10)
        raise OSError("the socket was closed")

    with (
        Feed(cut(), BOTH, batch_size=4, partition=3) as feed,
        pytest.raises(SourceLost, match="the socket was closed"),
    ):
        labels(feed.epoch(0))


@pytest.mark.parametrize("counted", [9, 11])
def test_rows_that_are_not_those_that_were_counted_are_an_error(counted: int) -> None:
    with (
        Feed(batches(10), BOTH, batch_size=4, partition=3, num_rows=counted) as feed,
        pytest.raises(SourceLost, match=f"Partition 3 brought 10 rows; {counted} were counted"),
    ):
        labels(feed.epoch(0))


def test_a_resumed_worker_whose_rows_are_cut_off_does_not_take_the_rest_for_all() -> None:
    with (
        Feed(batches(7), BOTH, batch_size=4, partition=0, num_rows=10) as feed,
        pytest.raises(SourceLost),
    ):
        labels(feed.epoch(1))
