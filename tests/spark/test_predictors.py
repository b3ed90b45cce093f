"""Prediction on DataFrames: the same numbers as Keras, every kind of column and model, streams, SQL."""

from __future__ import annotations

import time
from collections import OrderedDict

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.errors import PySparkException
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector, Vectors
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.predictors import ModelPredictor, predict_udf
from distkeras.worker import predict as worker_predict

ROWS = 100
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")


def classifier(seed=1, inputs=4):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def adder():
    """Its answer is the sum of the row: exact, and easy to see."""
    inputs = keras.Input((2,), name="pair")
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones", name="sum")(inputs))


def together():
    """Adds to each row the sum of its minibatch: exact in any order, if the numbers are small and whole."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, inputs + keras.ops.sum(inputs, axis=0, keepdims=True))


WHOLE = np.random.default_rng(0).integers(-50, 50, (96, 4)).astype("float32")


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def df(spark):
    frame = spark.createDataFrame(pd.DataFrame({"id": range(ROWS), "features": list(X.astype("float64"))}))
    frame = frame.repartitionByRange(2, "id").sortWithinPartitions("id").cache()
    frame.count()
    yield frame
    frame.unpersist()


def predicted(frame, name="prediction"):
    return np.array([row[name] for row in frame.select(name).collect()])


# --- the numbers


def test_predictions_are_those_of_keras_row_by_row(df, model):
    out = ModelPredictor(model).predict(df)
    assert [row.id for row in out.collect()] == list(range(ROWS))
    np.testing.assert_allclose(predicted(out), model.predict(X, verbose=0), rtol=1e-5, atol=1e-7)
    assert dict(out.dtypes)["prediction"] == "array<float>"


def test_the_minibatches_are_those_of_keras(spark):
    frame = spark.createDataFrame(pd.DataFrame({"features": list(WHOLE)})).coalesce(1)
    out = ModelPredictor(together(), batch_size=32).predict(frame)
    expected = together().predict(WHOLE, batch_size=32, verbose=0)
    np.testing.assert_array_equal(predicted(out).astype("float32"), expected)


def test_several_models_give_the_mean_of_their_outputs_in_one_pass(df):
    members = [classifier(seed) for seed in (1, 2, 3)]
    out = ModelPredictor(members).predict(df)
    expected = np.mean([member.predict(X, verbose=0) for member in members], axis=0)
    np.testing.assert_allclose(predicted(out), expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="2 models with 2 different signatures"):
        ModelPredictor([classifier(), classifier(inputs=5)])
    with pytest.raises(ValueError, match="0 models"):
        ModelPredictor([])


# --- columns


def test_all_other_columns_stay_as_they_are(spark):
    frame = spark.sql(
        "select array(1, 2) as x, named_struct('a', array(map('k', 1.5D)), 'b', null) as nested, "
        "cast('2024-05-06' as date) as day, timestamp_ntz '2024-05-06 07:08:09' as moment, "
        "12.34BD as price, x'00ff' as bytes, interval '2' hour as span, cast(null as string) as none, "
        "1 as `a.b`"
    )
    frame = frame.withColumn("sparse", F.lit(None)).withColumn("vector", array_to_vector("x"))
    frame = frame.withColumn("id", F.lit(7).alias("id", metadata={"unit": "none"}))
    out = ModelPredictor(adder(), "x").predict(frame)
    assert out.drop("prediction").schema == frame.schema
    assert out.schema["id"].metadata == {"unit": "none"}
    (row,) = out.collect()
    assert row[:-1] == tuple(frame.first())
    assert row["vector"] == DenseVector([1, 2])
    assert row["prediction"] == [3.0]


@pytest.mark.parametrize(
    "kind", ["array<double>", "array<int>", "array<decimal(6,2)>", "array<boolean>", "vector"]
)
def test_features_of_every_kind_are_taken(spark, kind):
    values = [1.0, 1.0] if kind == "array<boolean>" else [5.0, 2.0]
    frame = spark.createDataFrame([(values,)], "x array<double>")
    frame = frame.select((array_to_vector("x") if kind == "vector" else F.col("x").cast(kind)).alias("x"))
    assert predicted(ModelPredictor(adder(), "x").predict(frame)).tolist() == [[sum(values)]]


def test_sparse_and_dense_vectors_are_taken_together(spark):
    frame = spark.createDataFrame([(Vectors.sparse(2, {1: 3.0}),), (Vectors.dense(1, 2),)], ["x"])
    assert predicted(ModelPredictor(adder(), "x").predict(frame)).tolist() == [[3.0], [3.0]]


def test_images_as_bytes_and_as_nested_arrays_fill_the_input(spark):
    model = keras.Sequential([keras.Input((2, 3, 1)), keras.layers.GlobalMaxPooling2D()])
    frame = spark.sql("select x'000102030405' as image, array(array(0,1,2), array(3,9,5)) as grid")
    assert predicted(ModelPredictor(model, "image").predict(frame)).tolist() == [[5.0]]
    assert predicted(ModelPredictor(model, "grid").predict(frame)).tolist() == [[9.0]]


def test_sequences_may_be_of_different_lengths(spark):
    inputs = keras.Input((None,))
    steps = keras.layers.Reshape((-1, 1))(inputs)
    model = keras.Model(inputs, {"steps": steps, "mean": keras.layers.GlobalAveragePooling1D()(steps)})
    rows = [([1, 2, 3],), ([4],), ([7, 8, 9],), ([2, 4],)]
    frame = spark.createDataFrame(rows, "tokens array<int>").coalesce(1)
    out = ModelPredictor(model, "tokens").predict(frame).collect()
    assert [row.prediction_mean for row in out] == [[2.0], [4.0], [8.0], [3.0]]
    assert [[step[0] for step in row.prediction_steps] for row in out] == [list(row[0]) for row in rows]


def test_models_of_several_inputs_and_outputs(spark):
    left, right = keras.Input((1,), name="left"), keras.Input((2,), name="right")
    total = keras.layers.Add(name="total")([left, right])
    model = keras.Model([left, right], [total, keras.layers.Subtract(name="gap")([left, left])])
    frame = spark.sql("select 1.5 as a, array(1, 2) as b")
    out = ModelPredictor(model, ["a", "b"]).predict(frame)
    assert out.columns == ["a", "b", "prediction_total", "prediction_gap"]
    assert out.first()[2:] == ([2.5, 3.5], [0.0])
    named = ModelPredictor(
        model, {"right": "b", "left": "a"}, {"gap": "g", "total": "t"}, output="vector"
    ).predict(frame)
    assert named.columns == ["a", "b", "t", "g"]
    assert named.first()[2:] == (DenseVector([2.5, 3.5]), DenseVector([0]))
    with pytest.raises(ValueError, match="has a column 'p' already, or would have two"):
        ModelPredictor(model, ["a", "b"], ["p", "p"]).predict(frame)
    twice = frame.select("*", F.lit(1).alias("c"), F.lit(2).alias("c"), F.lit(3).alias("Predictions"))
    assert ModelPredictor(model, ["a", "b"]).predict(twice).first()[2:5] == (1, 2, 3)


def test_one_column_may_feed_two_inputs_of_different_types(spark):
    index, value = keras.Input((1,), dtype="int32", name="i"), keras.Input((1,), name="v")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(4, 1, embeddings_initializer="ones")(index))
    model = keras.Model([index, value], keras.layers.Add()([embedded, value]))
    frame = spark.sql("select 3 as n")
    assert predicted(ModelPredictor(model, ["n", "n"]).predict(frame)).tolist() == [[4.0]]


@pytest.mark.parametrize(
    ("output", "kind", "value"),
    [("array", "array<float>", [3.0]), ("scalar", "float", 3.0), ("vector", "vector", DenseVector([3.0]))],
)
def test_outputs_become_arrays_numbers_or_vectors(spark, output, kind, value):
    out = ModelPredictor(adder(), "x", "p", output=output).predict(spark.sql("select array(1, 2) as x"))
    assert out.first()["p"] == value
    assert dict(out.dtypes)["p"] == kind


def test_custom_layers_travel(spark):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    model = keras.Sequential([keras.Input((2,)), Doubled()])
    assert predicted(ModelPredictor(model, "x").predict(spark.sql("select array(1, 2) as x"))).tolist() == [
        [2, 4]
    ]


# --- one pass


def test_the_model_runs_once_whatever_is_asked_of_the_answer(df, model):
    out = ModelPredictor(model).predict(df).where("prediction[0] > 0.1").where("prediction[1] > 0.1")
    plan = out.select("prediction", F.col("prediction")[0])._jdf.queryExecution().executedPlan().toString()
    assert plan.count("ArrowEvalPython") == 1


def test_a_plan_that_is_not_deterministic_is_read_once(spark):
    frame = spark.range(50).select(F.array(F.rand(), F.rand()).alias("x"))
    for row in ModelPredictor(adder(), "x", output="scalar").predict(frame).collect():
        assert row.prediction == pytest.approx(sum(row.x), rel=1e-6)


def test_rows_are_cut_into_minibatches_across_the_pieces_in_which_they_arrive():
    parts = ((0, 5), (5, 7), (7, 7), (7, 16))
    pieces = [pa.array(range(first, end), pa.int64()) for first, end in parts]
    cut = [piece.to_pylist() for piece in worker_predict.in_minibatches(iter(pieces), 4)]
    assert cut == [list(range(first, first + 4)) for first in (0, 4, 8, 12)]
    assert [len(piece) for piece in worker_predict.in_minibatches(iter(pieces[:2]), 3)] == [3, 3, 1]
    assert list(worker_predict.in_minibatches(iter(pieces[2:3]), 3)) == []


def test_the_minibatches_of_a_partition_are_those_of_keras_whatever_spark_sends_at_once(spark):
    frame = spark.createDataFrame(pd.DataFrame({"features": list(WHOLE)})).coalesce(1)
    before = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 20)
    try:
        out = predicted(ModelPredictor(together(), batch_size=32).predict(frame))
    finally:
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", before)
    expected = together().predict(WHOLE, batch_size=32, verbose=0)
    np.testing.assert_array_equal(out.astype("float32"), expected)


def test_no_rows_give_no_rows(df, model):
    assert ModelPredictor(model).predict(df.limit(0)).collect() == []


def test_a_python_process_loads_a_model_once_and_keeps_a_few(monkeypatch):
    loads, load, opened = [], keras.saving.load_model, 0
    monkeypatch.setattr(
        keras.saving, "load_model", lambda *args, **kw: (loads.append(1), load(*args, **kw))[1]
    )
    monkeypatch.setattr(worker_predict, "_model_cache", OrderedDict())
    rows = pa.array([[1.0, 2.0]])
    single, doubled = adder(), adder()
    doubled.set_weights([np.full((2, 1), 2.0), np.zeros(1)])
    for model, answer in ((single, 3.0), (single, 3.0), (doubled, 6.0)):
        for _ in range(2):
            score, saved = predict_udf(model, output="scalar"), len(loads)
            assert score.func(rows).to_pylist() == [answer]
            opened += len(loads) - saved  # A copy is tried when a model is saved, too.
    assert opened == 2
    monkeypatch.setattr(worker_predict, "CACHED_MODELS", 1)
    predict_udf(adder()).func(rows)
    assert len(worker_predict._model_cache) == 1


# --- refusals


def test_what_does_not_fit_is_refused_before_anything_runs(df, model):
    with pytest.raises(ValueError, match="Did you mean 'features'"):
        ModelPredictor(model, "feature").predict(df)
    for taken in ("id", "ID"):
        with pytest.raises(ValueError, match=f"has a column '{taken}' already"):
            ModelPredictor(model, output_col=taken).predict(df)
    with pytest.raises(TypeError, match="holds strings"):
        ModelPredictor(model, "s").predict(df.withColumn("s", F.lit("a")))
    with pytest.raises(ValueError, match=r"shape \(3,\).*output='scalar'"):
        ModelPredictor(model, output="scalar")
    with pytest.raises(ValueError, match="Expected one of"):
        ModelPredictor(model, output="list")
    with pytest.raises(TypeError, match="must be a Keras model"):
        ModelPredictor("model")
    with pytest.raises(ValueError, match="1 output"):
        ModelPredictor(model, output_col=["a", "b"])
    with pytest.raises(ValueError, match="batch_size=0"):
        ModelPredictor(model, batch_size=0)
    with pytest.raises(ValueError, match="Expected a built model"):
        ModelPredictor(keras.Sequential([keras.layers.Dense(1)]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "row 2: found a null"),
        ([1.0], "row 2: found 1 values, expected 2"),
        ([1.0, None], "a null inside"),
    ],
)
def test_a_row_that_does_not_fit_is_named(spark, bad, message):
    frame = spark.createDataFrame([([1.0, 2.0],), ([3.0, 4.0],), (bad,)], "x array<float>").coalesce(1)
    with pytest.raises(PySparkException, match=f"Column 'x', partition 0, {message}|{message}"):
        ModelPredictor(adder(), "x").predict(frame).collect()


# --- SQL and streams


def test_predict_udf_serves_sql(spark, df, model):
    spark.udf.register("score", predict_udf(model))
    df.withColumn("features", array_to_vector("features")).createOrReplaceTempView("rows")
    out = spark.sql("select id, score(features) as prediction from rows order by id")
    np.testing.assert_allclose(predicted(out), model.predict(X, verbose=0), rtol=1e-5, atol=1e-7)
    total = predict_udf(adder(), output="scalar")
    sparse = spark.createDataFrame([(Vectors.sparse(2, {1: 3.0}),), (Vectors.dense(1, 2),)], ["x"])
    assert [row[0] for row in sparse.select(total("x")).collect()] == [3.0, 3.0]


def test_predict_udf_of_several_inputs_and_outputs_gives_a_struct(spark):
    left, right = keras.Input((1,), name="left"), keras.Input((1,), name="right")
    sums = {"total": keras.layers.Add()([left, right]), "gap": keras.layers.Subtract()([left, right])}
    udf = predict_udf(keras.Model([left, right], sums), output="scalar")
    row = spark.sql("select 5 as a, 2 as b").select(udf("a", "b").alias("p")).first()
    assert row.p.asDict() == {"gap": 3.0, "total": 7.0}


def test_predict_udf_says_how_many_columns_it_takes(spark):
    spark.udf.register("total", predict_udf(adder()))
    with pytest.raises(PySparkException, match=r"Expected 1 column\(s\).*\['pair'\].* Received: 2"):
        spark.sql("select total(array(1, 2), 3)").collect()


def finished(query):
    try:
        query.processAllAvailable()
    finally:
        query.stop()


def test_a_stream_of_files_is_predicted_as_it_comes(spark, df, model, tmp_path):
    source = str(tmp_path / "rows")
    df.write.parquet(source)
    stream = spark.readStream.schema(df.schema).parquet(source)
    query = ModelPredictor(model).predict(stream).writeStream.format("memory").queryName("answers").start()
    finished(query)
    out = spark.table("answers").orderBy("id")
    np.testing.assert_allclose(predicted(out), model.predict(X, verbose=0), rtol=1e-5, atol=1e-7)


def test_a_stream_of_a_rate_is_predicted_as_it_comes(spark):
    stream = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 5).load()
    stream = stream.select("value", F.array("value", F.lit(1)).alias("x"))
    out = ModelPredictor(adder(), "x", output="scalar").predict(stream)
    query = out.writeStream.format("memory").queryName("rate").start()
    try:
        deadline = time.monotonic() + 60
        while spark.table("rate").count() < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        query.stop()
    rows = spark.table("rate").collect()
    assert len(rows) >= 5
    assert all(row.prediction == row.value + 1 for row in rows)


@pytest.mark.parametrize("source", ["parquet", "orc"])
def test_columnar_sources_with_vectors_in_the_row_are_read(spark, tmp_path, source):
    rows = spark.range(8).select("id", F.array(F.col("id"), F.lit(1)).cast("array<double>").alias("a"))
    rows = rows.withColumn("features", array_to_vector("a")).withColumn("s", F.struct("features"))
    rows.coalesce(1).write.format(source).save(str(tmp_path / "rows"))
    frame = spark.read.format(source).load(str(tmp_path / "rows"))
    expected = [[id + 1.0] for id in range(8)]
    # ORC files do not say that a struct is a vector: Spark reads one beside as a struct.
    for column in ("features", "a", "s.features") if source == "parquet" else ("a",):
        assert predicted(ModelPredictor(adder(), column).predict(frame)).tolist() == expected
    # Where the plan below leaves no vector in what it selects, the source has one all the same.
    computed = frame.select(F.transform("a", lambda x: x).alias("a"), F.col("features"))
    assert predicted(ModelPredictor(adder(), "a").predict(computed)).tolist() == expected
    score = predict_udf(adder())
    assert predicted(frame.select(score("a").alias("prediction"), "features")).tolist() == expected
