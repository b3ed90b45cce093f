"""The user's DataFrame on its way to the workers: what is accepted, refused, and how it is laid out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from preparing import IMAGE, ONE, TEN, minibatch, prepared, refused
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812

from distkeras.cluster import partitions
from distkeras.cluster.data import Prepared
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.tensor_spec import TensorSpec

MNIST = str(Path(__file__).parents[2] / "examples" / "data" / "test.parquet")


def partitions_of(result: Prepared) -> dict[int, list[float]]:
    rows = result.frame.withColumn("partition", F.spark_partition_id()).collect()
    label = result.columns.labels[0].name
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["partition"], []).append(row[label])
    return found


@pytest.fixture(scope="module")
def pairs(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([([1.0, 2.0], 0.5), ([3.0, 4.0], 1.5)], "x array<double>, y double").cache()


def numbered(spark: SparkSession, rows: int, partitions: int) -> DataFrame:
    """Rows 0, 1, 2... in `y`, in order, in partitions of equal size."""
    return spark.range(0, rows, 1, partitions).select(
        F.array(F.col("id").cast("float"), F.lit(0.0).cast("float")).alias("x"),
        F.col("id").cast("double").alias("y"),
    )


# --- labels that differ between workers


@pytest.mark.parametrize(
    ("label", "differs"),
    [
        ("double(id % 10)", False),
        ("double(rand(1))", False),
        ("double(id div 500)", True),  # One class for each of two workers.
        ("int(if(id < 500, if(id % 2 = 0, 0, 9), 4 + id % 2))", True),  # Classes of one mean.
        ("array(float(id < 500), float(id >= 500))", True),  # One-hot.
        ("array(float(id % 2), float(1 - id % 2))", False),
        ("double(id)", True),
        ("double(1)", False),
    ],
)
def test_labels_that_differ_between_the_workers_partitions_are_told(spark, label, differs):
    df = spark.range(0, 1000, 1, 2).selectExpr("array(1f, 2f) AS x", f"{label} AS y")
    out = TensorSpec("out", (2,)) if label.startswith("array") else ONE
    assert (prepared(df, outputs=(out,), num_workers=2).skew is not None) == differs
    assert prepared(df, outputs=(out,), num_workers=2, shuffle=True).skew is None
    assert prepared(df, outputs=(out,), num_workers=1).skew is None


def test_a_few_rows_are_no_sign_that_labels_differ(spark):
    df = spark.range(0, 20, 1, 2).selectExpr("array(1f, 2f) AS x", "double(rand(3)) AS y")
    assert prepared(df, num_workers=2).skew is None


# --- what columns become


def test_arrays_and_numbers_arrive_as_the_model_takes_them(pairs: DataFrame) -> None:
    batch = minibatch(prepared(pairs))
    assert batch.x.dtype == np.float32
    assert batch.x.tolist() == [[1, 2], [3, 4]]
    assert batch.y.tolist() == [[0.5], [1.5]]
    assert batch.sample_weight is None


def test_binary_images_travel_as_bytes_and_arrive_in_the_shape_of_the_input(spark: SparkSession) -> None:
    df = spark.read.parquet(MNIST).limit(20)
    result = prepared(
        df,
        features="image",
        label="label",
        inputs=(IMAGE,),
        outputs=(TEN,),
        loss="sparse_categorical_crossentropy",
    )
    assert [kind for _, kind in result.frame.dtypes] == ["binary", "int"]
    batch = minibatch(result)
    first = df.first()
    assert first is not None
    assert batch.x.shape == (20, 28, 28, 1)
    assert batch.x.dtype == np.float32
    assert batch.x[0].ravel().astype(np.uint8).tobytes() == bytes(first["image"])
    assert (batch.y.dtype, batch.y.shape) == (np.int32, (20,))


def test_dense_and_sparse_vectors_become_arrays(spark: SparkSession) -> None:
    df = spark.createDataFrame([(Vectors.dense(1, 2), 0), (Vectors.sparse(2, {1: 3.0}), 1)], ["x", "y"])
    batch = minibatch(prepared(df, loss="binary_crossentropy"))
    assert batch.x.tolist() == [[1, 2], [0, 3]]
    assert (batch.y.dtype, batch.y.tolist()) == (np.float32, [[0], [1]])


def test_nested_arrays_booleans_and_decimals_are_taken(spark: SparkSession) -> None:
    df = spark.sql(
        "select array(array(1, 2), array(3, 4), array(5, 6)) as grid, true as flag, "
        "cast(2.5 as decimal(9, 2)) as y"
    )
    inputs = (TensorSpec("grid", (3, 2, 1)), TensorSpec("flag", (1,)))
    batch = minibatch(prepared(df, features=["grid", "flag"], inputs=inputs))
    assert batch.x[0].shape == (1, 3, 2, 1)
    assert batch.x[0].ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert batch.x[1].tolist() == [[1]]
    assert batch.y.tolist() == [[2.5]]


def test_unknown_lengths_are_taken_from_the_rows(spark: SparkSession) -> None:
    df = spark.sql("select array(1, 2, 3, 4, 5, 6) as x, 1.0D as y")
    result = prepared(df, inputs=(TensorSpec("in", (None, 2)),))
    assert result.columns.features[0].shape == (3, 2)
    assert prepared(df, inputs=(TensorSpec("in", None),)).columns.features[0].shape == (6,)


def test_strings_reach_a_model_that_takes_strings(spark: SparkSession) -> None:
    df = spark.createDataFrame([("to be", 1.0), ("or not", 0.0)], ["x", "y"])
    batch = minibatch(prepared(df, inputs=(TensorSpec("in", (1,), "string"),)))
    assert batch.x.tolist() == [["to be"], ["or not"]]


def test_inputs_in_a_dict_and_weights_find_their_columns(spark: SparkSession) -> None:
    df = spark.createDataFrame([([1.0, 2.0], 3, 0.5, 2.0)], "a array<double>, b int, y double, w double")
    inputs = (TensorSpec("left", (2,), key="left"), TensorSpec("right", (1,), "int32", key="right"))
    result = prepared(df, features={"right": "b", "left": "a"}, inputs=inputs, sample_weight_col="w")
    batch = minibatch(result)
    assert batch.x["left"].tolist() == [[1, 2]]
    assert (batch.x["right"].dtype, batch.x["right"].tolist()) == (np.int32, [[3]])
    assert (batch.sample_weight.dtype, batch.sample_weight.tolist()) == (np.float32, [2])


def test_two_outputs_take_each_its_own_kind_of_label(spark: SparkSession) -> None:
    df = spark.createDataFrame([([1.0, 2.0], 2, [0.0, 1.0])], "x array<double>, c int, h array<double>")
    outputs = (TensorSpec("kind", (3,)), TensorSpec("hot", (2,)))
    loss = {"kind": "SparseCategoricalCrossentropy", "hot": "categorical_crossentropy"}
    batch = minibatch(prepared(df, label=["c", "h"], outputs=outputs, loss=loss))
    assert (batch.y[0].dtype, batch.y[0].tolist()) == (np.int32, [2])
    assert (batch.y[1].dtype, batch.y[1].tolist()) == (np.float32, [[0, 1]])


def test_autoencoder_sends_its_column_once(pairs: DataFrame) -> None:
    result = prepared(pairs, label="x", outputs=(TensorSpec("out", (2,)),))
    assert len(result.frame.columns) == 1
    batch = minibatch(result)
    assert batch.x.tolist() == batch.y.tolist() == [[1, 2], [3, 4]]


def test_column_used_in_two_types_travels_twice(spark: SparkSession) -> None:
    df = spark.createDataFrame([(1,), (0,)], "x int")
    spec = TensorSpec("in", (1,))
    result = prepared(
        df,
        label="x",
        inputs=(spec,),
        outputs=(TensorSpec("out", (2,)),),
        loss="sparse_categorical_crossentropy",
    )
    assert [kind for _, kind in result.frame.dtypes] == ["float", "int"]
    assert minibatch(result).y.tolist() == [1, 0]


def test_names_with_dots_and_spaces_are_columns_like_others(spark: SparkSession) -> None:
    df = spark.createDataFrame([([1.0, 2.0], 0.5)], ["the x.values", "a`y"])
    assert minibatch(prepared(df, features="the x.values", label="a`y")).y.tolist() == [[0.5]]


def test_loss_of_the_users_own_gets_labels_as_they_are(spark: SparkSession) -> None:
    df = spark.createDataFrame([([1.0, 2.0], 7, [1.0, 2.0, 3.0])], "x array<double>, c int, v array<double>")
    whole = prepared(df, label="c", outputs=(TEN,), loss=None).columns.labels[0]
    assert (whole.shape, whole.dtype) == ((), "int32")
    vector = prepared(df, label="v", outputs=(TEN,), loss=None).columns.labels[0]
    assert (vector.shape, vector.dtype) == ((3,), "float32")


# --- what is refused, and how


def test_unknown_column_is_refused_with_the_closest_name(pairs: DataFrame) -> None:
    df = pairs.withColumnRenamed("x", "features")
    refused(df, "'feature'", "Did you mean 'features'?", "['features', 'y']", features="feature")


def test_wrong_number_of_columns_is_refused(pairs: DataFrame) -> None:
    two = (TensorSpec("a", (2,)), TensorSpec("b", (2,)))
    refused(pairs, "2 input(s) (a, b)", "names 1 column(s)", features=["x"], inputs=two)
    refused(pairs, "x, y have 3 value(s) per row together", "2 value(s)", features=["x", "y"])


def test_key_that_names_no_input_is_refused(pairs: DataFrame) -> None:
    refused(pairs, "each input of the model: ['in']", "'inn': 'x'", features={"inn": "x"})


@pytest.mark.parametrize("kind", ["date '2020-01-01'", "struct(1, 2)", "map(1, 2)"])
def test_type_that_holds_no_numbers_is_refused(spark: SparkSession, kind: str) -> None:
    refused(spark.sql(f"select {kind} as x, 1.0 as y"), "'x' cannot feed a model", error=TypeError)


def test_strings_for_numbers_and_numbers_for_strings_are_refused(spark: SparkSession) -> None:
    df = spark.sql("select '5' as x, 1.0D as y, 'a' as c")
    refused(df, "'x' holds strings", "float32", error=TypeError)
    refused(df, "'c' holds strings", "StringIndexer", error=TypeError, features="y", label="c")
    refused(
        df, "'y'", "cast('string')", error=TypeError, features="y", inputs=(TensorSpec("in", (1,), "string"),)
    )


def test_rows_of_another_length_are_refused(spark: SparkSession, pairs: DataFrame) -> None:
    refused(pairs, "'x' has 2 value(s) per row", "3 value(s) (shape (3,))", inputs=(TensorSpec("in", (3,)),))
    refused(pairs, "'y' has a single value", "2 value(s)", features="y")
    ragged = spark.createDataFrame([([1.0, 2.0], 1.0), ([1.0], 1.0)], ["x", "y"])
    refused(ragged, "'x' has rows of 1 to 2 values", "pad or cut")
    image = spark.createDataFrame([(bytearray(10), 1.0)], ["x", "y"])
    refused(image, "'x' has 10 value(s)", "784 value(s) (shape (28, 28, 1))", inputs=(IMAGE,))
    turned = spark.sql("select array(array(1, 2, 3), array(4, 5, 6)) as x, 1.0D as y")
    refused(turned, "'x' has 2 x 3 value(s)", "shape (3, 2)", inputs=(TensorSpec("in", (3, 2)),))
    inner = spark.sql("select array(array(1, 2), array(3)) as x, 1.0D as y")
    refused(inner, "1 to 2 values at nesting level 2", inputs=(TensorSpec("in", (2, 2)),))


def test_nulls_are_counted_and_refused(spark: SparkSession) -> None:
    rows = "(array(1.0D, 2.0D), null), (null, null), (array(1.0D, null), 1.0D)"
    df = spark.sql(f"select * from values {rows} as t(x, y)").cache()
    refused(df.where("x[1] is not null"), "'y' is null in 1 row(s)", "df.na.drop(subset=['y'])")
    filled = df.na.fill(0, ["y"])
    refused(filled, "'x' is null in 1 row(s)")
    refused(filled.where("x is not null"), "'x' has a null inside the array in 1 row(s)")
    whole = spark.sql("select array(1, null) as x, 1.0D as y union all select array(1, 2), 1.0D")
    refused(whole, "'x' has a null inside the array in 1 row(s)")


def test_null_vector_is_counted(spark: SparkSession) -> None:
    df = spark.createDataFrame([(Vectors.dense(1, 2), 0.0), (None, 1.0)], ["x", "y"])
    refused(df, "'x' is null in 1 row(s)")


def labelled(spark: SparkSession, label: str) -> DataFrame:
    return spark.sql(f"select array(1.0D, 2.0D) as x, {label} as y")


def test_class_indices_for_one_hot_loss_are_refused(spark: SparkSession) -> None:
    df = labelled(spark, "3")
    refused(
        df,
        "single class label",
        "sparse_categorical_crossentropy",
        outputs=(TEN,),
        loss="CategoricalCrossentropy",
    )


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("-1", "label -1"),
        ("10", "labels up to 10"),
        ("1.5D", "not an integer in 1 row(s)"),
        ("double('nan')", "not an integer in 1 row(s)"),
        ("array(1, 2, 3)", "3 value(s) per row"),
        ("array(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)", "one-hot"),
    ],
)
def test_labels_that_are_no_class_indices_are_refused(spark: SparkSession, label: str, found: str) -> None:
    refused(labelled(spark, label), "'y'", found, outputs=(TEN,), loss="sparse_categorical_crossentropy")


def test_one_hot_of_another_width_is_refused(spark: SparkSession) -> None:
    df = labelled(spark, "array(1, 0, 0)")
    refused(df, "'y' has 3 value(s)", "10 value(s)", outputs=(TEN,), loss="categorical_crossentropy")


def test_binary_labels_outside_0_to_1_are_refused(spark: SparkSession) -> None:
    refused(labelled(spark, "-1"), "from -1 to -1", "Map the classes", loss="binary_crossentropy")


def test_label_that_is_not_a_number_is_refused(spark: SparkSession) -> None:
    refused(labelled(spark, "double('nan')"), "'y' has the label NaN", "first in row 0")


def test_fraction_for_an_input_of_integers_is_refused(spark: SparkSession) -> None:
    df = spark.sql("select array(1.0D, 2.5D) as x, 1.0D as y")
    refused(df, "'x' has a number that is not an integer", "int32", inputs=(TensorSpec("in", (2,), "int32"),))


def test_too_few_rows_are_refused(pairs: DataFrame) -> None:
    refused(pairs.where("y > 9"), "is empty", "num_workers=1")
    refused(pairs, "has 2 row(s) for 3 workers", num_workers=3)


def test_class_weights_want_one_class_a_row_of_one_output(spark: SparkSession) -> None:
    weigh = {"class_weight": ClassWeight.of({0: 2.0})}
    hot = labelled(spark, "array(1, 0, 0)")
    three = TensorSpec("out", (3,))
    result = prepared(hot, outputs=(three,), loss="categorical_crossentropy", **weigh)
    assert minibatch(result).sample_weight.tolist() == [2]
    places = {"outputs": (TensorSpec("out", (3, 5)),), "loss": "sparse_categorical_crossentropy"}
    refused(hot, "'y' has labels of shape (3,)", "sample_weight_col", **places, **weigh)
    df = labelled(spark, "0").withColumn("z", F.lit(1.0))
    refused(df, "one output", "labels=['y', 'z']", label=["y", "z"], outputs=(ONE, ONE), **weigh)
    refused(df, "labels=[]", label=None, outputs=(ONE,), **weigh)


# --- partitions


def test_one_worker_gets_the_rows_in_order(spark: SparkSession) -> None:
    result = prepared(numbered(spark, 100, 7))
    assert result.rows_per_partition == (100,)
    assert partitions_of(result) == {0: list(range(100))}


def test_even_partitions_stay_as_they_are(spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "distkeras.cluster"):
        result = prepared(numbered(spark, 100, 2), num_workers=2)
    assert partitions_of(result) == {0: list(range(50)), 1: list(range(50, 100))}
    assert result.rows_per_partition == (50, 50)
    assert "in the existing partitions: (50, 50)" in caplog.text


def test_partitions_that_differ_by_more_than_a_batch_are_dealt(spark: SparkSession) -> None:
    df = numbered(spark, 1000, 2).where("y > 7")  # 492 and 500 rows
    assert prepared(df, num_workers=2, batch_size=8).rows_per_partition == (492, 500)
    assert prepared(df, num_workers=2, batch_size=7).rows_per_partition == (496, 496)


def test_partitions_are_joined_where_that_is_even(spark: SparkSession) -> None:
    result = prepared(numbered(spark, 100, 4), num_workers=2)
    assert partitions_of(result) == {0: list(range(50)), 1: list(range(50, 100))}


@pytest.mark.parametrize(("partitions", "workers"), [(1, 3), (5, 3), (20, 3)])
def test_uneven_partitions_are_dealt_out_in_order(spark: SparkSession, partitions: int, workers: int) -> None:
    df = numbered(spark, 20, partitions).where("y < 3 or y > 8")
    result = prepared(df, num_workers=workers, batch_size=1)
    found = partitions_of(result)
    assert result.num_rows == 14
    assert result.rows_per_partition == (5, 5, 4)
    assert {index: len(rows) for index, rows in found.items()} == {0: 5, 1: 5, 2: 4}
    assert sorted(itertools.chain(*found.values())) == [0, 1, 2, *range(9, 20)]
    assert all(rows == sorted(rows) for rows in found.values())


def test_every_worker_gets_a_row_even_of_as_many_rows_as_workers(spark: SparkSession) -> None:
    result = prepared(numbered(spark, 5, 5).coalesce(1), num_workers=5)
    assert partitions_of(result) == {0: [0], 1: [1], 2: [2], 3: [3], 4: [4]}


def test_plan_that_spark_may_change_is_dealt_to_as_many_partitions_as_workers(spark: SparkSession) -> None:
    df = (
        numbered(spark, 90, 4)
        .groupBy("x")
        .agg(F.sum("y").alias("y"))
        .join(numbered(spark, 90, 4), ["x", "y"])
    )
    result = prepared(df, num_workers=3)
    found = partitions_of(result)
    assert sorted(found) == [0, 1, 2]
    assert sorted(itertools.chain(*found.values())) == list(range(90))


@pytest.mark.parametrize("cached", [False, True])
def test_rows_that_are_cached_above_a_shuffle_are_not_shuffled_again(
    spark: SparkSession, cached: bool, caplog: pytest.LogCaptureFixture
) -> None:
    df = numbered(spark, 90, 4).groupBy("y").agg(F.first("x").alias("x"))
    df = df.cache() if cached else df
    with caplog.at_level(logging.INFO, "distkeras.cluster"):
        result = prepared(df.select("y", "x"), num_workers=2, batch_size=90)
    told = [message for message in caplog.messages if message.startswith("Spark may replan")]
    assert len(told) == (0 if cached else 1)
    found = partitions_of(result)
    assert sorted(itertools.chain(*found.values())) == list(range(90))
    df.unpersist()


def test_a_shuffle_above_a_cache_may_be_replanned(spark: SparkSession) -> None:
    df = numbered(spark, 90, 4).cache()
    above = df.groupBy("y").agg(F.first("x").alias("x"))
    assert partitions._replanned(above)
    assert not partitions._replanned(df)
    assert partitions._replanned(df.join(df.groupBy("y").count(), "y"))
    df.unpersist()


def test_shuffle_deals_by_seed_and_every_row_once(spark: SparkSession) -> None:
    df = numbered(spark, 101, 2)
    first = prepared(df, num_workers=2, shuffle=True, seed=1)
    again = prepared(df, num_workers=2, shuffle=True, seed=1)
    other = prepared(df, num_workers=2, shuffle=True, seed=2)
    assert first.rows_per_partition == (51, 50)
    dealt = partitions_of(first)
    assert dealt == partitions_of(again)
    assert dealt != partitions_of(other)
    assert sorted(dealt[0] + dealt[1]) == list(range(101))
    assert (len(dealt[0]), len(dealt[1])) == (51, 50)
    assert dealt[0] != sorted(dealt[0])
    assert 5 < sum(row % 2 == 0 for row in dealt[0]) < 46  # Not the even rows, nor the odd ones.


def test_shuffle_reorders_the_rows_of_a_single_worker(spark: SparkSession) -> None:
    rows = partitions_of(prepared(numbered(spark, 50, 2), shuffle=True))[0]
    assert rows != list(range(50))
    assert sorted(rows) == list(range(50))


@pytest.mark.parametrize("workers", [1, 2])
def test_barrier_stage_takes_the_partitions(spark: SparkSession, workers: int) -> None:
    result = prepared(numbered(spark, 40, 4), num_workers=workers, barrier=True)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch([pa.array([sum(batch.num_rows for batch in batches)])], names=["rows"])

    found = result.frame.mapInArrow(count, "rows long", barrier=True).collect()
    assert [row["rows"] for row in found] == list(result.rows_per_partition) == [40 // workers] * workers
    assert all(rows == sorted(rows) for rows in partitions_of(result).values())
