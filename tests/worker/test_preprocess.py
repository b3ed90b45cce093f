"""Code of the user's that makes minibatches: what it is given, what may come back, and when it runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import RAW, Column, Columns
from distkeras.worker.feed import Feed
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec

INPUT = (TensorSpec("in", (2,)),)
ROWS = 10
BATCH = pa.record_batch(
    {
        "c0": [bytes([row]) * row for row in range(ROWS)],
        "c1": [f"text {row}" for row in range(ROWS)],
        "c2": [[float(row)] * (row % 3) for row in range(ROWS)],
        "c3": [[["a"] * (row % 2), ["b"]] for row in range(ROWS)],
        "c4": list(range(ROWS)),
        "c5": [row % 2 == 0 for row in range(ROWS)],
        "label": [row % 4 for row in range(ROWS)],
        "weight": [row / 2 for row in range(ROWS)],
    }
)
NAMES = ("image", "text", "list", "nested", "row", "flag")
RAW_COLUMNS = tuple(Column(f"c{index}", (10,), RAW) for index in range(len(NAMES)))
LABEL, WEIGHT = Column("label", (), "int32"), Column("weight", (), "float32")


@pytest.fixture(autouse=True)
def spool_on_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_DIRS", str(tmp_path))


def columns(function: Any, inputs: tuple[TensorSpec, ...] = INPUT, **options: Any) -> Columns:
    options.setdefault("labels", (LABEL,))
    preprocess = Preprocess.of(function, NAMES, inputs)
    return Columns((), raw=RAW_COLUMNS, preprocess=preprocess, **options)


def feed(function: Any, inputs: tuple[TensorSpec, ...] = INPUT, **options: Any) -> Feed:
    given = {
        name: options.pop(name) for name in list(options) if name not in ("shuffle", "seed", "num_epoch")
    }
    sizes = pa.Table.from_batches([BATCH.slice(0, 3), BATCH.slice(3)])
    return Feed(
        iter(sizes.to_batches()), columns(function, inputs, **given), batch_size=4, partition=2, **options
    )


def pairs(columns: dict[str, Any]) -> Any:
    return np.stack([columns["row"], columns["row"]], 1)


@pytest.mark.parametrize("shuffle", [False, True])
def test_columns_come_by_the_users_names_with_values_of_every_type(shuffle: bool) -> None:
    def check(columns: dict[str, Any]) -> Any:
        assert list(columns) == list(NAMES)
        for row, image, text, numbers, nested, flag in zip(
            columns["row"],
            columns["image"],
            columns["text"],
            columns["list"],
            columns["nested"],
            columns["flag"],
            strict=True,
        ):
            assert (image, text, flag) == (bytes([row]) * row, f"text {row}", row % 2 == 0)
            assert isinstance(numbers, np.ndarray)
            assert (numbers.dtype, numbers.tolist()) == (np.float64, [row] * (row % 3))
            assert [part.tolist() for part in nested] == [["a"] * (row % 2), ["b"]]
            numbers += 1  # What the function is given is its own.
        columns["row"][:] += 100
        return pairs(columns) - 100

    with feed(check, shuffle=shuffle) as minibatches:
        for epoch in range(3):
            found = list(minibatches.epoch(epoch))
            rows = np.concatenate([minibatch.x[:, 0] for minibatch in found])  # type: ignore[index, call-overload]
            assert sorted(rows) == list(range(ROWS))
            assert rows.dtype == np.float32
            labels = np.concatenate([minibatch.y for minibatch in found])  # type: ignore[misc]
            assert labels.tolist() == (rows % 4).tolist()


def test_random_numbers_depend_on_seed_partition_epoch_and_minibatch_alone() -> None:
    def augment(columns: dict[str, Any], *, rng: np.random.Generator) -> Any:
        return rng.normal(size=(len(columns["row"]), 2))

    def drawn(minibatches: Feed, epoch: int, start: int = 0) -> list[Any]:
        return [np.ravel(minibatch.x).tolist() for minibatch in minibatches.epoch(epoch, start)]  # type: ignore[arg-type]

    with feed(augment) as one, feed(augment) as other, feed(augment, seed=1) as another:
        epochs = [drawn(one, epoch) for epoch in range(3)]
        assert drawn(other, 0, 1) == epochs[0][1:]
        assert drawn(other, 2, 2) == epochs[2][2:]
        assert drawn(other, 0, 2) == epochs[0][2:]
        numbers = [tuple(numbers) for epoch in epochs for numbers in epoch] + list(
            map(tuple, drawn(another, 0))
        )
        assert len(set(numbers)) == len(numbers) == 12


def test_labels_and_weights_that_come_back_take_the_place_of_the_columns() -> None:
    def first(function: Any, **options: Any) -> Any:
        with feed(function, num_epoch=1, **options) as minibatches:
            return next(iter(minibatches.epoch(0)))

    plain = first(pairs, sample_weights=(WEIGHT,))
    assert (plain.y.tolist(), plain.sample_weight.tolist()) == ([0, 1, 2, 3], [0, 0.5, 1, 1.5])
    labels = first(lambda columns: (pairs(columns), columns["row"] + 5), labels=(), sample_weights=(WEIGHT,))
    assert (labels.y.tolist(), labels.sample_weight.tolist()) == ([5, 6, 7, 8], [0, 0.5, 1, 1.5])
    weights = first(lambda columns: (pairs(columns), columns["row"], columns["row"] * 2.0), labels=())
    assert weights.sample_weight.tolist() == [0, 2, 4, 6]
    classes = ClassWeight.of({1: 4.0})
    assert first(pairs, class_weight=classes).sample_weight.tolist() == [1, 4, 1, 1]
    made = first(lambda columns: (pairs(columns), columns["row"] * 0 + 1), labels=(), class_weight=classes)
    assert made.sample_weight.tolist() == [4, 4, 4, 4]


def test_several_inputs_come_as_a_list_or_by_name() -> None:
    listed = (TensorSpec("a", (2,)), TensorSpec("b", (), "int32"))
    keyed = (TensorSpec("a", (2,), "float32", "a"), TensorSpec("b", (), "int32", "b"))
    for function in (
        lambda columns: [pairs(columns), columns["row"]],
        lambda columns: {"b": columns["row"], "a": pairs(columns)},
    ):
        with feed(function, listed) as minibatches:
            x: Any = next(iter(minibatches.epoch(0))).x
            assert [(part.shape, str(part.dtype)) for part in x] == [((4, 2), "float32"), ((4,), "int32")]
        with feed(function, keyed) as minibatches:
            x = next(iter(minibatches.epoch(0))).x
            assert {key: str(part.dtype) for key, part in x.items()} == {"a": "float32", "b": "int32"}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda columns: pairs(columns)[1:],
            "a row for each of the 4 rows of partition 2, epoch 0, minibatch 0",
        ),
        (lambda columns: pairs(columns)[:, :1], r"shape \('rows', 2\) .* Received: shape \(4, 1\)"),
        (lambda columns: columns["list"], "different lengths are joined by distkeras.Padding"),
        (lambda columns: None, "Received: an array of type object"),
        (lambda columns: [pairs(columns)] * 2, "Received: a list of 2"),
        (lambda columns: {"on": pairs(columns)}, r"each input of the model: \['in'\]. Received: \['on'\]"),
        (lambda columns: (), "Received: a tuple of 0"),
        (lambda columns: (pairs(columns), 3), r"Received: y of shape \(\)"),
    ],
    ids=["rows", "shape", "ragged", "none", "list", "dict", "tuple", "label"],
)
def test_what_does_not_fit_the_model_is_refused(function: Any, message: str) -> None:
    with feed(function) as minibatches, pytest.raises(ValueError, match=message):
        list(minibatches.epoch(0))


def test_an_exception_keeps_its_class_and_says_which_rows_it_was_given() -> None:
    def fail(columns: dict[str, Any]) -> Any:
        if 4 in columns["row"]:
            raise KeyError("no such word")
        return pairs(columns)

    with feed(fail) as minibatches, pytest.raises(KeyError, match="no such word") as caught:
        list(minibatches.epoch(0))
    assert caught.value.__notes__ == [
        "This was raised by `preprocess`, called with the rows of partition 2, epoch 0, minibatch 1."
    ]


def test_minibatches_are_made_ahead_in_a_thread_in_every_epoch_and_the_time_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threads = []
    made = threading.Semaphore(0)

    def note(columns: dict[str, Any]) -> Any:
        threads.append(threading.current_thread().name)
        made.release()
        return pairs(columns)

    minibatches = feed(pairs)
    minibatches._batcher._preprocessor._function = note  # type: ignore[union-attr]  # as it is, unpickled
    with caplog.at_level(logging.INFO, "distkeras.worker"), minibatches:
        for epoch in range(2):
            reader = minibatches.epoch(epoch)
            next(reader)
            for _ in range(3):  # All of this epoch, while the first waits to be trained.
                assert made.acquire(timeout=10)
            assert len(list(reader)) == 2
        assert threads == ["distkeras-prefetch"] * 6
        assert minibatches.preprocess_seconds is not None
        assert minibatches.preprocess_seconds > 0
    assert "`preprocess` took" in caplog.text


def test_rows_that_fill_no_minibatch_are_left_out_and_told_where_that_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = Columns((Column("c4", (1,), "float32"),), (LABEL,))
    for given in (plain, columns(pairs)):
        caplog.clear()
        source = Feed(iter([BATCH]), given, batch_size=4, partition=2, shuffle=True, drop_remainder=True)
        with caplog.at_level(logging.INFO, "distkeras.worker"), source as minibatches:
            for epoch in range(2):
                found = list(minibatches.epoch(epoch))
                assert [minibatch.num_samples for minibatch in found] == [4, 4]
        assert "Partition 2, epoch 0: 2 row(s) left out, which fill no minibatch of 4" in caplog.text
