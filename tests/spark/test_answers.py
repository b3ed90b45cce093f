"""Rows that Spark holds in its cache are counted and checked once, and all other rows each time."""

from __future__ import annotations

import itertools
import logging

import keras
import numpy as np
import pytest
from preparing import PAIR, TEN, prepared, refused
from pyspark.sql import functions as F  # noqa: N812

from distkeras import DOWNPOUR
from distkeras.cluster import answers

GROUPS = (f"answers-{number}" for number in itertools.count())


@pytest.fixture
def jobs(spark):
    """Return how many jobs Spark runs for a call, and what the call returns."""

    def counted(call, *args, **kwargs):
        context, group = spark.sparkContext, next(GROUPS)
        context.setJobGroup(group, "")
        try:
            result = call(*args, **kwargs)
        finally:
            context.setLocalProperty("spark.jobGroup.id", None)
            context.setLocalProperty("spark.job.description", None)
        return len(context.statusTracker().getJobIdsForGroup(group)), result

    return counted


@pytest.fixture
def cached(spark, tmp_path):
    """Write rows to files, and return them from Spark's cache."""
    frames = []

    def of(rows, labels=2):
        written = spark.range(0, rows, 1, 2).selectExpr(
            "array(float(id), id / 7) AS x", f"int(id % {labels}) AS y"
        )
        written.write.mode("overwrite").parquet(str(tmp_path / "rows"))
        frames.append(spark.read.parquet(str(tmp_path / "rows")).cache())
        frames[-1].count()
        return frames[-1]

    yield of
    for frame in frames:
        frame.unpersist(blocking=True)


def rows_of(result):
    return result.num_rows, result.rows_per_partition, result.columns, result.content, result.skew


def test_the_same_cached_rows_are_counted_once(jobs, cached, caplog):
    df = cached(40)
    first, one = jobs(prepared, df, with_content=True)
    with caplog.at_level(logging.INFO, "distkeras.cluster"):
        second, two = jobs(prepared, df, with_content=True)
    assert first > second == 0
    assert rows_of(one) == rows_of(two)
    assert one.content is not None
    assert "The cached rows were counted and checked before." in caplog.messages
    assert two.frame.count() == 40


def test_another_question_about_the_same_rows_is_asked(jobs, cached):
    df = cached(40)
    prepared(df)
    classes = {"outputs": (TEN,), "loss": "sparse_categorical_crossentropy"}
    for options in ({"num_workers": 2}, {"with_content": True}, classes):
        assert jobs(prepared, df, **options)[0] > 0, options
    assert jobs(prepared, df.where("y = 1"))[1].num_rows == 20


def test_rows_that_are_cached_again_are_counted_again(jobs, cached):
    df = cached(40)
    prepared(df)
    df.unpersist(blocking=True)
    again = cached(60)
    ran, result = jobs(prepared, again)
    assert ran > 0
    assert result.num_rows == 60


def test_the_same_frame_cached_again_is_counted_again(jobs, cached):
    df = cached(40)
    prepared(df)
    df.unpersist(blocking=True)
    df.cache().count()
    ran, result = jobs(prepared, df)
    assert ran > 0
    assert result.num_rows == 40


def test_rows_that_spark_has_dropped_from_its_cache_are_counted_again(spark, jobs, cached):
    df = cached(40)
    prepared(df)
    (number,) = answers._blocks(spark, df._jdf.queryExecution().withCachedData())
    spark.sparkContext._jsc.getPersistentRDDs().get(number).unpersist(True)
    ran, result = jobs(prepared, df)
    assert ran > 0
    assert result.num_rows == 40


def test_a_cache_that_is_not_filled_is_filled_by_the_question_itself(spark, jobs, cached):
    written = cached(40)
    df = written.groupBy("y").agg(F.first("x").alias("x")).repartition(2).cache()
    plan = df._jdf.queryExecution().withCachedData()
    assert jobs(answers._blocks, spark, plan) == (0, frozenset())
    first, one = jobs(prepared, df)
    second, two = jobs(prepared, df)
    df.unpersist(blocking=True)
    assert first > second == 0
    assert rows_of(one) == rows_of(two)


def test_rows_of_files_are_counted_each_time(spark, jobs, cached, tmp_path):
    cached(40).unpersist(blocking=True)
    for _ in range(2):
        assert jobs(prepared, spark.read.parquet(str(tmp_path / "rows")))[0] > 0


def test_rows_made_by_a_function_of_python_are_counted_each_time(jobs, cached):
    number = itertools.count()
    df = cached(40).withColumn("y", F.udf(lambda label: label + next(number) * 0, "int")("y"))
    for _ in range(2):
        assert jobs(prepared, df)[0] > 0


def test_rows_of_a_time_are_counted_each_time(jobs, cached):
    df = cached(40).where("timestamp_seconds(x[0]) < current_date()")
    for _ in range(2):
        assert jobs(prepared, df)[0] > 0


def test_a_random_order_above_cached_rows_is_counted_each_time(jobs, cached):
    df = cached(40).repartition(3).withColumn("y", (F.rand() > 2).cast("int"))
    for _ in range(2):
        with pytest.warns(UserWarning, match="may differ"):
            assert jobs(prepared, df)[0] > 0


def test_invalid_rows_are_refused_each_time(cached):
    df = cached(4, labels=4)
    for _ in range(2):
        refused(df, "2 row(s), first in row 2", outputs=(PAIR,), loss="sparse_categorical_crossentropy")


def test_answers_are_dropped_when_there_are_many(cached, monkeypatch):
    monkeypatch.setattr(answers, "MOST_ANSWERS", 3)
    df = cached(40)

    def known(bound):
        query = df.where(F.col("x")[0] > bound).groupBy("y").count()
        return answers.collect(query, "counts", repeatable=True)[1]

    assert [known(bound) for bound in range(5)] == [False] * 5
    assert len(answers._answers) == 3
    assert [known(bound) for bound in (4, 3, 2, 1)] == [True, True, True, False]


def test_a_training_in_a_session_with_a_cache_is_the_same_the_second_time(cached):
    df = cached(64)
    found = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
        trainer = DOWNPOUR(
            model,
            "sgd",
            "sparse_categorical_crossentropy",
            features_col="x",
            label_col="y",
            num_workers=1,
            batch_size=8,
            verbose=0,
        )
        found.append(trainer.train(df).get_weights())
    np.testing.assert_array_equal(found[0][0], found[1][0])
