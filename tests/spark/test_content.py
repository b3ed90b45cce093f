"""The name for what rows hold: the same in any order and partition; another for other rows."""

from __future__ import annotations

import math

import pytest
from preparing import ONE, prepared
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F  # noqa: N812

from distkeras.cluster.content import content_of, content_question
from distkeras.cluster.source import source_of

NAN = math.nan


@pytest.fixture(scope="module")
def rows(spark):
    """Rows of every kind that may feed a model, nulls and NaN among them."""
    data = [
        (
            i,
            i / 7 if i % 5 else NAN,
            None if i % 4 == 0 else i,
            f"text {i}",
            bytes([i % 256] * 9),
            [float(i), None, float(-i)],
            [[i, i + 1], [i + 2]],
            Vectors.dense(i, 1.0) if i % 2 else Vectors.sparse(2, {1: float(i)}),
            i % 3 == 0,
        )
        for i in range(200)
    ]
    schema = "id int, real double, gap int, text string, raw binary, list array<double>, "
    schema += "nested array<array<int>>, vector vector, flag boolean"
    names = [part.split()[0] for part in schema.split(", ")]
    frame = spark.createDataFrame(data, names)
    kept = frame.withColumn("real", F.col("real").cast("double")).withColumn("id", F.col("id").cast("int"))
    return kept.coalesce(1).cache()


def named(frame):
    """Return the name of all rows of `frame`."""
    sources = [source_of(field) for field in frame.schema]
    return content_of(frame.groupBy(F.spark_partition_id()).agg(content_question(sources)).collect())


def test_rows_have_one_name_in_any_order_and_partition_from_memory_and_from_files(rows, tmp_path):
    expected = named(rows)
    assert named(rows.orderBy(F.desc("id"))) == expected
    assert named(rows.repartition(3)) == expected
    rows.write.parquet(str(tmp_path / "rows"))
    assert named(rows.sparkSession.read.parquet(str(tmp_path / "rows"))) == expected


CHANGES = {
    "id": "id + 1",
    "real": "real * 2",
    "gap": "coalesce(gap, 0)",
    "text": "upper(text)",
    "raw": "substring(raw, 2, 8)",
    "list": "transform(list, x -> coalesce(x, 0))",
    "nested": "transform(nested, x -> reverse(x))",
    "vector": None,
    "flag": "not flag",
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_column_of_any_kind_that_holds_something_else_gives_another_name(rows, column):
    alone = rows.select(column)
    if column == "vector":
        data = [(Vectors.dense(row.vector.toArray() + 1.0),) for row in alone.collect()]
        changed = rows.sparkSession.createDataFrame(data, ["vector"])
    else:
        changed = alone.select(F.expr(CHANGES[column]).alias(column))
    assert named(changed) != named(alone)


def test_null_nan_zero_and_the_place_of_a_null_are_told_apart(spark):
    names = [
        named(spark.createDataFrame(data, "a double, b double").coalesce(1))
        for data in (
            [(None, 1.0)] * 3,
            [(1.0, None)] * 3,
            [(NAN, 1.0)] * 3,
            [(0.0, 1.0)] * 3,
            [(None, None)] * 3,
            [(None, 1.0)] * 4,
        )
    ]
    assert len({*names}) == len(names)


def test_a_change_of_all_rows_in_one_of_many_columns_is_seen(spark):
    """Of most columns only some rows are read."""
    many = spark.range(2000).select(*((F.col("id") * k).alias(f"c{k}") for k in range(30))).coalesce(1)
    assert named(many) != named(many.withColumn("c17", F.col("c17") + 1))


def test_only_a_training_that_may_be_resumed_pays_and_rows_that_change_by_themselves_have_no_name(spark):
    rows = spark.range(8).select(
        F.array(F.lit(1.0), F.col("id").cast("double")).alias("x"), F.lit(1.0).alias("y")
    )
    assert prepared(rows).content is None
    content = prepared(rows, with_content=True).content
    assert content == prepared(rows.repartition(2), num_workers=2, with_content=True).content
    assert content is not None
    changing = rows.repartition(2).withColumn("y", F.rand())
    with pytest.warns(UserWarning, match="may differ"):
        assert prepared(changing, with_content=True, outputs=(ONE,)).content is None
