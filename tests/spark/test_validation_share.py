"""Validation rows travel beside the training rows, which keep their workers and their order."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from preparing import ONE, prepared
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession

from distkeras.cluster.data import Prepared, with_validation
from distkeras.worker.feeding import Feeding
from distkeras.worker.tensor_spec import TensorSpec
from distkeras.worker.validation_share import ValidationShare, split_off

WORDS = TensorSpec("words", (None,), "int32")


def rows_of(spark: SparkSession, first: int, end: int, partitions: int, weighted: bool = True) -> DataFrame:
    """Rows of different lengths, numbered in `y`."""
    weight = ["float(id) / 2 AS w"] if weighted else []
    frame = spark.range(first, end, 1, partitions)
    return frame.selectExpr("sequence(1, 1 + int(id % 4)) AS x", "float(id) AS y", *weight)


def prepared_words(frame: DataFrame, num_workers: int, **options: Any) -> Prepared:
    settings = {"inputs": (WORDS,), "outputs": (ONE,), "batch_size": 4, "feeding": Feeding(pad_to="longest")}
    weight = "w" if "w" in frame.columns else None
    return prepared(frame, num_workers=num_workers, sample_weight_col=weight, **settings | options)


def trained_in(result: Prepared, frame: DataFrame) -> list[list[float]]:
    """The labels of the training rows of each worker, in their order."""
    return [labels for labels, *_ in read(result, frame, None)]


def read(result: Prepared, frame: DataFrame, share: ValidationShare | None) -> list[tuple[list[Any], ...]]:
    """For each worker: labels of its training rows; labels, weights and lengths of its validation rows."""
    label = result.columns.labels[0].name

    def taken(batches: Any) -> Any:
        worker = TaskContext.get().partitionId()
        rows, rest = split_off(batches, share, worker)
        columns: dict[str, list[Any]] = {"y": [], "w": [], "x": []}
        with rows:
            # A restarted stage may evaluate before it trains, and again later.
            for minibatch in [] if rows.feed is None else [*rows.feed.epoch(0), *rows.feed.epoch(0)]:
                columns["y"] += minibatch.y.ravel().tolist()
                columns["w"] += [] if minibatch.sample_weight is None else minibatch.sample_weight.tolist()
                columns["x"] += (minibatch.x > 0).sum(1).tolist()
        trained = [value for batch in rest for value in batch.column(label).to_pylist()]
        yield pa.RecordBatch.from_pydict(
            {"worker": [worker], "trained": [trained], **{name: [values] for name, values in columns.items()}}
        )

    schema = "worker bigint, trained array<double>, y array<double>, w array<double>, x array<bigint>"
    rows = sorted(frame.mapInArrow(taken, schema).collect(), key=lambda row: row.worker)
    return [(row.trained, row.y, row.w, row.x) for row in rows]


@pytest.mark.parametrize("shuffle", [False, True])
def test_training_rows_stay_where_they_are_and_every_validation_row_is_there_once(
    spark: SparkSession, shuffle: bool
) -> None:
    training = prepared_words(rows_of(spark, 0, 46, 4), 2, shuffle=shuffle, seed=3)
    validation = prepared_words(rows_of(spark, 100, 111, 3, weighted=False), 2)
    frame, share = with_validation(training.frame, 2, validation, batch_size=4)
    workers = read(training, frame, share)
    assert [trained for trained, *_ in workers] == trained_in(training, training.frame)
    assert tuple(len(labels) // 2 for _, labels, *_ in workers) == share.rows == validation.rows_per_partition
    labels = [label for _, its, *_ in workers for label in its[: len(its) // 2]]
    assert sorted(labels) == [float(number) for number in range(100, 111)]
    for _, its, weights, lengths in workers:
        assert weights == []
        assert lengths == [1 + label % 4 for label in its]


def test_one_validation_row_goes_to_one_worker_and_members_of_an_ensemble_get_all(
    spark: SparkSession,
) -> None:
    training = prepared_words(rows_of(spark, 0, 12, 2, weighted=False), 2)
    validation = prepared_words(rows_of(spark, 100, 101, 2), 1)
    frame, share = with_validation(training.frame, 2, validation, batch_size=4)
    assert share.rows == (1, 0)
    assert [its[1:3] for its in read(training, frame, share)] == [([100.0] * 2, [50.0] * 2), ([], [])]
    validation = prepared_words(rows_of(spark, 100, 105, 2), 1)
    frame, share = with_validation(training.frame, 2, validation, batch_size=4, to_all=True)
    assert share.rows == (5, 5)
    for trained, labels, weights, _ in read(training, frame, share):
        assert len(trained) == 6
        assert labels == [100.0, 101.0, 102.0, 103.0, 104.0] * 2
        assert weights == [label / 2 for label in labels]


def test_the_size_of_rows_is_known_before_they_move(spark: SparkSession) -> None:
    result = prepared_words(rows_of(spark, 0, 10, 1), 1)
    assert result.num_bytes == 10 * (4 * 4 + 4 + 4)  # Four words at most, a label and a weight.
