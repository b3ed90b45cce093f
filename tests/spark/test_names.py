"""Columns of any name: found as Spark finds them, trained on, predicted with, and named in messages."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from preparing import PAIR, minibatch, prepared, refused
from pyspark.ml.functions import array_to_vector
from pyspark.sql import functions as F  # noqa: N812

from distkeras import SingleTrainer
from distkeras.ml import KerasEstimator
from distkeras.predictors import ModelPredictor
from distkeras.worker.tensor_spec import TensorSpec

NAMES = [
    "a.b",
    "`tick`",
    "quo\"te'd",
    "two  spaces",
    "ла бел.1",
    "x",
    "X",
    "c0",
    "u1",
    "",
    "line\nbreak",
    "*",
]


@pytest.fixture(scope="module")
def odd(spark):
    """Eight rows, whose row i holds i, i + 1, ... under odd names, a struct and a vector beside."""
    rows = [tuple(float(row + place) for place in range(len(NAMES))) for row in range(8)]
    frame = spark.createDataFrame(rows, [f"n{place}" for place in range(len(NAMES))])
    numbers = F.struct(F.lit(5.0).alias("a.b"), F.lit(6.0).alias("v"))
    return frame.select("*", numbers.alias("s"), array_to_vector(F.array("n0", "n1")).alias("vec")).toDF(
        *NAMES, "s", "vec.x"
    )


def summing(inputs):
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(1, kernel_initializer="ones")])


def test_any_legal_name_trains_and_predicts_like_fit(odd):
    model = summing(len(NAMES))
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    given = {"features_col": NAMES, "label_col": "ла бел.1", "sample_weight_col": "`tick`"}
    trained = SingleTrainer(model, class_weight={4: 2.0}, batch_size=4, **given).train(odd)
    x = np.arange(8.0)[:, None] + np.arange(len(NAMES))
    weight = x[:, 1] * np.where(x[:, 4] == 4, 2, 1)
    model.fit(x, x[:, 4], sample_weight=weight, batch_size=4, shuffle=False, verbose=0)
    for value, expected in zip(trained.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    out = ModelPredictor(model, NAMES, "p.q").predict(odd)
    assert out.columns == [*odd.columns, "p.q"]
    found = np.array([row["p.q"] for row in out.collect()])
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-5)


def test_a_stage_of_spark_ml_takes_a_list_of_columns_with_odd_names(odd):
    model = summing(3)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fitted = KerasEstimator(model=model, featuresCol=["a.b", "vec.x"], labelCol="X", numWorkers=1).fit(odd)
    assert [row.prediction for row in fitted.transform(odd.limit(2)).collect()] == [[1.0], [4.0]]


def test_fields_of_structs_are_columns_and_a_column_of_that_name_comes_first(spark, odd):
    assert minibatch(prepared(odd, features=["s.v", "a.b"], label="s.`a.b`")).x[1].tolist() == [6, 1]
    frame = odd.withColumn("s.v", F.lit(9.0)).limit(1)
    assert minibatch(prepared(frame, features=["s.v", "a.b"], label="x")).x.tolist() == [[9, 0]]
    out = ModelPredictor(summing(2), ["s.v", "S.V"]).predict(odd.select("s").limit(1))
    assert [row.prediction for row in out.collect()] == [[12.0]]
    aliased = spark.range(1).alias("t")
    one = (TensorSpec("in", (1,)),)
    assert minibatch(prepared(aliased, features="t.id", label="id", inputs=one)).x.tolist() == [[0]]


def test_case_is_compared_as_the_session_says(spark, odd):
    one = {"inputs": (TensorSpec("in", (1,)),), "label": "x"}
    assert minibatch(prepared(odd, features="A.B", **one)).x[1].tolist() == [1]
    assert minibatch(prepared(odd, features="X", **one)).x[1].tolist() == [7]
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        refused(odd, "Column 'A.B' is not in the DataFrame. Did you mean 'a.b'?", features="A.B", **one)
        assert minibatch(prepared(odd, features="X", **one)).x[1].tolist() == [7]
        assert ModelPredictor(summing(1), "X").predict(odd).first()["prediction"] == [6.0]
    finally:
        spark.conf.unset("spark.sql.caseSensitive")


def test_ambiguous_and_unknown_names_are_refused_as_written(spark, odd):
    one = {"inputs": (TensorSpec("in", (1,)),), "label": "z"}
    twins = spark.createDataFrame([(1.0, 2.0, 3.0, 4.0)], ["Ab", "aB", "z", "w"])
    refused(twins, "Column 'AB' is ambiguous", "['Ab', 'aB']", "features_col='AB'", features="AB", **one)
    assert minibatch(prepared(twins, features="aB", **one)).x.tolist() == [[2]]
    twice = twins.toDF("a.b", "a.b", "z", "w")
    refused(twice, "Column 'a.b' is ambiguous", "['a.b', 'a.b']", features="a.b", **one)
    assert ModelPredictor(summing(1), "w").predict(twice).columns == ["a.b", "a.b", "z", "w", "prediction"]
    one["label"] = "x"
    refused(odd, "Column 's.w' is not in", "Did you mean 's.v'", features="s.w", **one)
    refused(odd, "Column '`oops' is not in the DataFrame", features="`oops", **one)
    refused(odd, "Column 's.*' is not in", features="s.*", **one)
    with pytest.raises(ValueError, match=r"Column 'x\.y' is not in the DataFrame"):
        ModelPredictor(summing(1), "x.y").predict(odd)


def test_messages_name_the_column_as_written_and_a_mend_that_works(spark, odd):
    df = odd.withColumn("a.b", F.when(F.col("`a.b`") < 6, F.col("`a.b`"))).coalesce(1)
    with pytest.raises(ValueError, match=r"Column 'a.b' is null in 2 row\(s\), first in row 6") as caught:
        prepared(df, features=["x", "a.b"], label="X")
    mend = str(caught.value).split("with ")[1].split(", or fill")[0]
    mended = eval(mend, {"df": df, "F": F})
    assert prepared(mended, features=["x", "a.b"], label="X").num_rows == 6


def test_tables_in_memory_may_have_any_names_too(spark):
    table = pd.DataFrame([[1.0, 2.0, 3.0, 0.5]], columns=["x", "X", "a.b;{}", "y"])
    model = summing(3)
    trainer = SingleTrainer(model, keras.optimizers.SGD(0.1), "mse", label_col="y")
    trainer.features_col = ["X", "a.b;{}", "x"]
    trained = trainer.train(table)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(np.array([[2.0, 3.0, 1.0]]), np.array([0.5]), verbose=0)
    np.testing.assert_allclose(trained.get_weights()[0], model.get_weights()[0], rtol=1e-6)


def test_columns_are_put_together_in_the_order_given(spark):
    df = spark.createDataFrame([(1, [2.0, 3.0], True, 9.0)], "a int, b array<double>, c boolean, y double")
    df = df.withColumn("d", array_to_vector(F.array("y", "y")))
    inputs = (TensorSpec("in", (2, 3)),)
    batch = minibatch(prepared(df, features=["d", "c", "b", "a"], inputs=inputs))
    assert batch.x.tolist() == [[[9, 9, 1], [2, 3, 1]]]
    refused(df, "columns a, c, y have 3 value(s)", "2 value(s)", features=["a", "c", "y"])
    refused(df.withColumn("b", F.array("b")), "'b' holds nested", error=TypeError, features=["a", "b"])
    assert prepared(df, features=["a", "c"], inputs=(PAIR,)).columns.features[0].title_at(1) == "c"
