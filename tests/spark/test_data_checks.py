"""Values that a model cannot take: refused on the driver, with the column and the first such row."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pyarrow as pa
import pytest
from preparing import IMAGE, ONE, PAIR, TEN, minibatch, prepared, refused
from pyspark.errors import PySparkException
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F  # noqa: N812

from distkeras import SingleTrainer
from distkeras.cluster.repeatable import RowsMayChange, why_rows_may_change
from distkeras.predictors import ModelPredictor
from distkeras.worker.arrivals import RowsChanged
from distkeras.worker.columns import Column, Columns
from distkeras.worker.feed import Feed
from distkeras.worker.feeding import Feeding
from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import TensorSpec

SINGLE = TensorSpec("in", (1,))
PNG = b"\x89PNG\r\n\x1a\n" + bytes(50)


@pytest.fixture(scope="module")
def faulty(spark):
    """Twelve rows in three partitions; row 7 is at fault in many ways, row 9 too."""
    wrong = F.col("id").isin(7, 9)

    def when(value, good):
        return F.when(wrong, F.expr(value)).otherwise(F.expr(good))

    return (
        spark.range(0, 12, 1, 3)
        .select(
            "id",
            when("double('nan')", "1.0D").alias("nan"),
            when("float('-inf')", "1.0F").alias("inf"),
            when("1e300D", "1.0D").alias("huge"),
            when("array(1.0D, double('nan'))", "array(1.0D, 2.0D)").alias("array"),
            when("array(array(float('inf')))", "array(array(1.0F))").alias("nested"),
            when("3000000000", "5L").alias("long"),
            when("array(1, -1)", "array(0, 9)").alias("ids"),
            when("0.5D", "1.0D").alias("half"),
            F.lit(1.0).alias("y"),
        )
        .cache()
    )


FIRST = "2 row(s), first in row 7"


def test_numbers_that_are_not_finite_are_refused_with_the_first_row(faulty):
    for name in ("nan", "inf", "huge"):
        refused(faulty, f"Column '{name}' has NaN or infinity", FIRST, features=name, inputs=(SINGLE,))
    refused(faulty, "Column 'array' has NaN", FIRST, features="array")
    refused(faulty, "Column 'nested' has NaN", FIRST, features="nested", inputs=(SINGLE,))
    refused(faulty, "Column 'inf' has NaN", FIRST, features=["y", "inf"])
    refused(faulty, "Column 'nan' has NaN", FIRST, features=["y", "y"], sample_weight_col="nan")
    refused(
        faulty, "Column 'inf' has the label NaN, or an infinite one", FIRST, features=["y", "y"], label="inf"
    )
    double = (TensorSpec("in", (1,), "float64"),)
    assert prepared(faulty, features="huge", inputs=double).num_rows == 12


def test_numbers_that_are_not_finite_reach_the_model_with_a_warning_where_that_is_asked_for(spark):
    """As features, labels and weights, within limits or without; what is outside the limits stays refused."""
    nan, inf = float("nan"), float("inf")
    schema = "x array<double>, y double, w double"
    warn = {"feeding": Feeding(not_finite="warn"), "sample_weight_col": "w"}
    rows = [([1.0, nan], 1.0, inf), ([1e300, 2.0], -inf, 1.0), ([1.0, 2.0], nan, nan)]
    for loss in ("mse", "binary_crossentropy"):
        with pytest.warns(UserWarning, match="NaN or infinity") as caught:
            batch = minibatch(prepared(spark.createDataFrame(rows, schema), loss=loss, **warn))
        told = {str(each.message).split("'")[1]: str(each.message) for each in caught}
        assert {name: text.partition(" in ")[2][:30] for name, text in told.items()} == {
            "x": "2 row(s), first in row 0. They",
            "y": "2 row(s), first in row 1. They",
            "w": "2 row(s), first in row 0. They",
        }
        np.testing.assert_array_equal(batch.x, [[1, nan], [inf, 2], [1, 2]])
        np.testing.assert_array_equal(batch.y.ravel(), [1, -inf, nan])
        np.testing.assert_array_equal(batch.sample_weight.ravel(), [inf, 1, nan])
    outside = spark.createDataFrame([([1.0, 2.0], nan, 1.0), ([1.0, 2.0], 3.0, 1.0)], schema)
    refused(outside, "outside 0 to 1 in 1 row(s), first in row 1", loss="binary_crossentropy", **warn)
    # A class or an id is an integer.
    refused(outside, "not an integer", loss="sparse_categorical_crossentropy", outputs=(TEN,), **warn)
    ids = (TensorSpec("in", (2,), "int32", size=5),)
    refused(spark.createDataFrame(rows[:1], schema), "Expected finite", inputs=ids, **warn)


def test_vectors_that_are_not_finite_are_refused(spark):
    rows = [(Vectors.dense(1, 2), 0.0), (Vectors.sparse(2, {1: float("nan")}), 1.0)]
    refused(spark.createDataFrame(rows, ["x", "y"]).coalesce(1), "'x' has NaN", "1 row(s), first in row 1")


def test_integers_that_do_not_fit_are_refused(faulty):
    whole = (TensorSpec("in", (1,), "int32"),)
    refused(faulty, "'long' has numbers from 5 to 3000000000", FIRST, "int32", features="long", inputs=whole)
    refused(faulty, "'half' has a number that is not an integer", FIRST, features="half", inputs=whole)
    small = (TensorSpec("in", (2,), "uint8"),)
    refused(faulty, "'ids' has numbers from -1 to 9", "0 to 255", FIRST, features="ids", inputs=small)


def test_class_labels_that_are_none_are_refused_with_the_first_row(faulty):
    one_of_nine = {"features": ["y", "y"], "loss": "sparse_categorical_crossentropy"}
    nine = (TensorSpec("out", (9,)),)
    refused(
        faulty, "'half' has a label that is not an integer", FIRST, label="half", outputs=nine, **one_of_nine
    )
    places = (TensorSpec("out", (2, 9)),)
    refused(faulty, "'ids' has the label -1", "12 row(s)", label="ids", outputs=places, **one_of_nine)
    refused(faulty, "labels up to 3e+09", FIRST, label="long", outputs=nine, **one_of_nine)


def ids_model():
    """Two inputs of ids: one is looked up here and in an inner model of fewer ids, one is not looked up."""
    inner = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(9, 1), keras.layers.Flatten()])
    ids, other = keras.Input((2,), name="ids", dtype="int32"), keras.Input((2,), name="other")
    own = keras.layers.Flatten()(keras.layers.Embedding(20, 1)(ids))
    return keras.Model([ids, other], keras.layers.Add()([inner(ids), own, other]))


def test_ids_beyond_the_vocabulary_of_an_embedding_are_refused(faulty):
    inputs, outputs = model_signature(ids_model())
    assert [spec.size for spec in inputs] == [9, None]
    told = (
        "'ids' has numbers from -1 to 9",
        "0 to 8 in 12 row(s), first in row 0",
        "embedding at input 'ids'",
    )
    refused(faulty, *told, features=["ids", "array"], inputs=inputs, outputs=outputs, label="array")
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(9, 1)])
    assert model_signature(sequential)[0][0].size == 9


def test_the_worker_refuses_what_only_the_second_evaluation_brings(spark):
    frame = spark.createDataFrame([(1.0, [1.0, 2.0], 3, 0.0)], "a double, b array<double>, c int, y double")
    inputs = (TensorSpec("in", (4,), "float32"),)
    columns = prepared(frame, features=["a", "b", "c"], inputs=inputs).columns
    name = columns.features[0].name
    labels = pa.array([0.0], pa.float32())
    for row, found in ([1, 2, np.nan, 4], "'b'"), ([1, 2, 3, np.inf], "'c'"):
        batch = pa.record_batch(
            {name: pa.array([row], pa.list_(pa.float32())), columns.labels[0].name: labels}
        )
        with (
            Feed(iter([batch]), columns, batch_size=1, partition=2, num_epoch=1) as feed,
            pytest.raises(ValueError, match=f"Column {found}, partition 2, row 0: found (nan|inf)"),
        ):
            list(feed.epoch(0))


def test_undecoded_images_are_told_by_their_first_bytes(spark):
    frame = spark.createDataFrame([(bytearray(PNG), 1.0), (bytearray(PNG + b"x"), 1.0)], ["x", "y"]).coalesce(
        1
    )
    refused(frame, "look like an undecoded PNG image", "`preprocess`", inputs=(IMAGE,))
    jpeg = spark.createDataFrame([(bytearray(b"\xff\xd8\xff\xe0" + bytes(9)), 1.0)], ["x", "y"])
    refused(jpeg, "'x' has 13 value(s)", "undecoded JPEG image", inputs=(IMAGE,))
    webp = spark.createDataFrame([(bytearray(b"RIFF1234WEBPVP8 "),)], ["x"])
    model = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()])
    with pytest.raises(PySparkException, match=r"'x', partition \d, row 0: found 16 values.*undecoded WebP"):
        ModelPredictor(model, "x").predict(webp).collect()


def test_prediction_names_the_row_of_an_integer_that_does_not_fit(faulty):
    model = keras.Sequential([keras.Input((1,), dtype="int32"), keras.layers.Embedding(9, 1)])
    with pytest.raises(
        PySparkException, match=r"'long', partition \d, row [13]: found 3000000000, expected -2147"
    ):
        ModelPredictor(model, "long").predict(faulty).collect()
    assert ModelPredictor(model, "long").predict(faulty.where("long = 5")).count() == 10


CASTS = {
    "date '1970-01-11'": 10,
    "timestamp '1970-01-02 00:00:00 UTC'": 86400,
    "timestamp_ntz '1970-01-02 00:00:00'": 86400,
    "interval '1 00:00:07' day to second": 86407,
    "interval '2-1' year to month": 25,
    "map('key', 3.0D)": 3,
    "parse_json('2.5')": 2.5,
}


def test_the_cast_that_an_error_names_makes_numbers_of_the_column(spark):
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    try:
        frame = spark.sql("select " + ", ".join(f"{sql} as `c.{i}`" for i, sql in enumerate(CASTS)))
        made = []
        for name in frame.columns:
            with pytest.raises(TypeError, match=r"cannot feed a model. .* Use ") as caught:
                prepared(frame, features=name, label=name)
            expression = str(caught.value).split("Use ")[1].split(": ")[0]
            made.append(eval(expression, {"F": F}).alias(name))
        row = frame.select(*made).first()
        assert [value[0] if isinstance(value, list) else value for value in row] == list(CASTS.values())
        struct = spark.sql("select struct(1 as a, 2 as `b.c`) as s, array(date '1970-01-02') as d, null as n")
        refused(
            struct, "Name one of its fields: ['s.a', 's.`b.c`']", error=TypeError, features="s", label="s"
        )
        refused(struct, "Use F.transform('d', lambda x: F.unix_date(x))", error=TypeError, features="d")
        refused(struct, "null in every row", error=TypeError, features="n")
    finally:
        spark.conf.unset("spark.sql.session.timeZone")


# --- sample weights


def test_sample_weights_of_every_shape_are_those_of_fit(spark):
    """One number a row, one for each place, and for two outputs one column for both, a list and a dict."""
    inputs = keras.Input((4,), name="x")
    steps = keras.layers.Reshape((4, 1))(inputs)
    tags = keras.layers.Dense(3, activation="softmax", name="tags")(steps)
    model = keras.Model(inputs, [tags, keras.layers.Dense(1, name="sum")(inputs)])
    rng = np.random.default_rng(0)
    x, tag, total = rng.normal(size=(16, 4)), rng.integers(0, 3, (16, 4)), rng.normal(size=(16, 1))
    by_step, by_row = rng.random((16, 4)), rng.random(16)
    losses = ["sparse_categorical_crossentropy", "mse"]
    settings = {"optimizer": keras.optimizers.SGD(0.1), "loss": losses}

    def check(own, y, given, like_fit, **options):
        own.compile(**options)
        weights = own.get_weights()
        trained = SingleTrainer(own, batch_size=8).train((x, y, given))
        own.fit(x, y, sample_weight=like_fit, batch_size=8, shuffle=False, verbose=0)
        for value, expected in zip(trained.get_weights(), own.get_weights(), strict=True):
            np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-7)
        own.set_weights(weights)

    one = keras.Model(inputs, tags)
    check(one, tag, by_step, by_step, optimizer=keras.optimizers.SGD(0.1), loss=losses[0])
    both = [by_step, by_row]
    check(model, [tag, total], both, both, **settings)
    check(model, [tag, total], {"sum": by_row}, [None, by_row], **settings)


def test_columns_of_sample_weights_go_to_their_outputs(spark):
    df = spark.createDataFrame(
        [([1.0, 2.0], 0.5, [2.0, 3.0], 4.0)], "x array<double>, y double, w array<double>, v double"
    )
    outputs = (TensorSpec("a", (2, 5)), TensorSpec("b", (1,)))
    given = {"label": ["w", "y"], "outputs": outputs, "loss": [None, "mse"]}
    batch = minibatch(prepared(df, sample_weight_col=["w", "v"], **given))
    assert [weight.tolist() for weight in batch.sample_weight] == [[[2, 3]], [4]]
    batch = minibatch(prepared(df, sample_weight_col={"b": "v"}, **given))
    assert batch.sample_weight[0] is None
    assert batch.sample_weight[1].tolist() == [4]
    assert minibatch(prepared(df, sample_weight_col="v", **given)).sample_weight.tolist() == [4]
    refused(df, "give one for each: ['a', 'b']", "{'c': 'v'}", sample_weight_col={"c": "v"}, **given)
    refused(df, "give one for each", sample_weight_col=["v"], **given)
    refused(df, "'w' has 2 value(s) per row", "sample weight of output 'out'", sample_weight_col="w")


# --- minibatches that the model fixes


def test_a_size_of_minibatches_that_the_model_fixes_is_kept(spark):
    model = keras.Sequential(
        [keras.Input(batch_shape=(4, 2)), keras.layers.Dense(1, kernel_initializer="ones")]
    )
    inputs, outputs = model_signature(model)
    df = spark.createDataFrame([([float(i), 1.0], 0.5) for i in range(10)], ["x", "y"]).coalesce(1)
    fixed = {"inputs": inputs, "outputs": outputs}
    refused(df, "fixes minibatches of 4 rows", "batch_size=4", "Received: batch_size=32", **fixed)
    refused(df, "a worker has 10 rows", "drop_remainder=True", batch_size=4, **fixed)
    assert prepared(df, batch_size=4, feeding=Feeding(drop_remainder=True), **fixed).num_rows == 10
    refused(
        df,
        "a worker has 3 rows",
        "fewer workers",
        batch_size=4,
        feeding=Feeding(drop_remainder=True),
        num_workers=3,
        **fixed,
    )
    out = ModelPredictor(model, "x").predict(df)
    assert [row.prediction for row in out.collect()] == [[i + 1.0] for i in range(10)]
    with pytest.raises(ValueError, match="fixes minibatches of 4 rows"):
        ModelPredictor(model, "x", batch_size=5)


# --- rows that change


def test_plans_that_may_give_other_rows_are_told_by_their_cause(spark):
    chance = F.udf(lambda value: True, "boolean").asNondeterministic()
    plain = spark.range(10).select(F.array(F.col("id"), F.lit(1.0)).alias("x"), F.lit(1.0).alias("y"))
    assert why_rows_may_change(plain.sample(0.5, seed=1).where(F.rand(1) > 0.5)) is None
    assert "the UDF '<lambda>'" in str(why_rows_may_change(plain.where(chance("y"))))
    shuffled = plain.repartition(2)
    assert why_rows_may_change(shuffled) is None
    assert "a sample" in str(why_rows_may_change(shuffled.sample(0.5, seed=1)))
    assert "rand() above a shuffle" in str(why_rows_may_change(shuffled.where(F.rand(1) > 0.5)))
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert why_rows_may_change(ModelPredictor(model, "x").predict(plain)) is None
    with pytest.warns(RowsMayChange, match=r"it has the UDF '<lambda>'.*df\.cache\(\).*df\.checkpoint\(\)"):
        columns = prepared(plain.where(chance("y")), inputs=(PAIR,), outputs=(ONE,)).columns
    assert columns.may_change == "the UDF '<lambda>', which is not deterministic"
    with warnings.catch_warnings():
        warnings.simplefilter("error", RowsMayChange)
        prepared(plain.where(chance("y")).cache())


@pytest.mark.parametrize("time", ["current_timestamp()", "now()", "localtimestamp()"])
def test_the_time_of_a_query_may_give_other_rows_and_its_date_not(spark, time):
    plain = spark.range(10).selectExpr("array(id, 1.0) AS x", "1.0 AS y", "timestamp_seconds(id) AS t")
    recent = plain.where(f"t < {time} - interval 1 day")
    assert why_rows_may_change(recent.select("x", "y")) == time
    assert why_rows_may_change(plain.selectExpr("x", f"unix_timestamp({time}) - y AS y")) == time
    assert why_rows_may_change(recent.cache().select("x")) is None
    assert why_rows_may_change(plain.where("t < current_date()")) is None
    recent.unpersist()


def test_rows_that_have_changed_are_said_at_once_with_the_cause_and_the_mend():
    label = Column("y", (), "float32")
    columns = Columns((label,), may_change="the UDF 'chance', which is not deterministic")
    batch = pa.record_batch({"y": [1.0, 2.0]})
    mend = r"because of the UDF 'chance'.* Cache it \(df\.cache\(\)\), checkpoint it"
    with (
        Feed(iter([batch]), columns, batch_size=1, partition=2, num_epoch=1, num_rows=3) as feed,
        pytest.raises(RowsChanged, match=rf"Partition 2 brought 2 rows; 3 were counted .*{mend}"),
    ):
        list(feed.epoch(0))
