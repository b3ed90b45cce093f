"""The DataFrame transformers: values, kinds of columns, edges, and life inside a Pipeline."""

from __future__ import annotations

import math

import pytest
from pyspark.errors import PySparkException
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.ml.linalg import DenseVector, SparseVector, Vectors, VectorUDT
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql.types import StructField, StructType

from distkeras.transformers import (
    BinaryLabelTransformer,
    DenseTransformer,
    LabelIndexTransformer,
    MinMaxTransformer,
    OneHotTransformer,
    ReshapeTransformer,
    StandardTransformer,
)

NAN = math.nan


def column(frame, name="out"):
    return [row[name] for row in frame.select(name).collect()]


def vectors(spark, *rows):
    schema = StructType([StructField("x", VectorUDT())])
    return spark.createDataFrame([(row,) for row in rows], schema)


def predictions(spark, *rows):
    return spark.createDataFrame(
        [(list(row) if row is not None else None,) for row in rows], "p array<double>"
    )


# --- MinMaxTransformer


def bytes_to_units(**options):
    return MinMaxTransformer(0, 255, 0.0, 1.0, "x", "out", **options)


def test_min_max_maps_the_old_range_onto_the_new_and_keeps_vectors(spark):
    df = vectors(spark, Vectors.dense(0, 51, 255), SparseVector(3, {2: 510.0}), None)
    out = bytes_to_units().transform(df)
    assert column(out) == [DenseVector([0, 0.2, 1]), DenseVector([0, 0, 2]), None]
    assert out.columns == ["x", "out"]


def test_min_max_keeps_arrays_their_type_and_their_nesting(spark):
    df = spark.sql("select array(float(0), float(255), null) as x, array(array(0, 255)) as grid, 51 as one")
    assert bytes_to_units().transform(df).selectExpr("typeof(out)", "out").first() == (
        "array<float>",
        [0, 1, None],
    )
    nested = MinMaxTransformer(0, 255, -1, 1, "grid", "grid").transform(df)
    assert nested.selectExpr("typeof(grid)", "grid").first() == ("array<array<double>>", [[-1.0, 1.0]])
    assert MinMaxTransformer(0, 255, 0, 1, "one", "one", is_vector=False).transform(df).first()["one"] == 0.2


def test_min_max_reaches_both_ends_exactly(spark):
    df = spark.createDataFrame([([-3.0, 0.1, 49.0],)], "x array<double>")
    (out,) = column(MinMaxTransformer(-3, 49, 10, 20, "x", "out").transform(df))
    assert (out[0], out[2]) == (10.0, 20.0)
    assert out[1] == pytest.approx(10 + 10 * 3.1 / 52)


def test_min_max_of_a_range_of_zero_width_gives_the_middle_and_nan_stays_nan(spark):
    df = spark.createDataFrame([([5.0, 7.0, NAN],)], "x array<double>")
    (out,) = column(MinMaxTransformer(5, 5, 0, 1, "x", "out").transform(df))
    assert out[:2] == [0.5, 0.5]
    assert math.isnan(out[2])
    (scaled,) = column(bytes_to_units().transform(df))
    assert math.isnan(scaled[2])


def test_min_max_refuses_what_it_cannot_scale(spark):
    with pytest.raises(ValueError, match="finite number"):
        MinMaxTransformer(0, math.inf, 0, 1, "x", "out")
    with pytest.raises(TypeError, match="Received: string"):
        bytes_to_units().transform(spark.sql("select 'a' as x"))
    with pytest.raises(TypeError, match=r"expected vectors or arrays.* Received: int"):
        bytes_to_units(is_vector=True).transform(spark.sql("select 1 as x"))
    with pytest.raises(ValueError, match=r"needs `nMin`"):
        MinMaxTransformer(0, 255, input_col="x", output_col="out").transform(spark.sql("select 1 as x"))
    with pytest.raises(ValueError, match="Did you mean 'x1'"):
        bytes_to_units().transform(spark.sql("select 1 as x1"))


# --- StandardTransformer


def test_standard_brings_columns_to_mean_0_and_population_deviation_1(spark):
    df = spark.createDataFrame([(1.0, 10), (3.0, 10), (None, 10)], "a double, b int")
    out = StandardTransformer(["a", "b"]).transform(df)
    assert out.columns == ["a", "b", "a_normalized", "b_normalized"]
    assert column(out, "a_normalized") == [-1, 1, None]
    assert column(out, "b_normalized") == [0, 0, 0]


def test_standard_takes_vectors_and_arrays_element_by_element(spark):
    df = vectors(spark, Vectors.dense(1, 5), SparseVector(2, {0: 3.0, 1: 5.0}))
    df = df.withColumn("y", F.array(F.lit(1.0), vector_to_array("x")[0]).cast("array<float>"))
    out = StandardTransformer(["x", "y"], suffix="_std").transform(df)
    assert column(out, "x_std") == [DenseVector([-1, 0]), DenseVector([1, 0])]
    assert column(out, "y_std") == [[0, -1], [0, 1]]
    assert dict(out.dtypes)["y_std"] == "array<float>"


def test_standard_of_a_column_with_a_nan_is_nan(spark):
    df = spark.createDataFrame([(1.0,), (NAN,)], "a double")
    assert all(
        math.isnan(value) for value in column(StandardTransformer(["a"]).transform(df), "a_normalized")
    )


def test_standard_refuses_a_stream(spark):
    stream = spark.readStream.format("rate").load()
    with pytest.raises(ValueError, match="a streaming one"):
        StandardTransformer(["value"]).transform(stream)


# --- labels


def test_binary_label_marks_one_class(spark):
    df = spark.createDataFrame([("s",), ("b",), (None,)], "c string")
    out = BinaryLabelTransformer("c", "out", "s").transform(df)
    assert column(out) == [DenseVector([1, 0]), DenseVector([0, 1]), None]
    numbers = spark.createDataFrame([(1.0,), (2.0,), (NAN,)], "c double")
    out = BinaryLabelTransformer("c", "out", 2).transform(numbers)
    assert column(out) == [DenseVector([0, 1]), DenseVector([1, 0]), DenseVector([0, 1])]
    with pytest.raises(TypeError, match="`label`='2'"):
        BinaryLabelTransformer("c", "out", "2").transform(numbers)


@pytest.mark.parametrize("kind", ["int", "double", "tinyint", "decimal(5,2)"])
def test_one_hot_encodes_every_type_of_number(spark, kind):
    df = spark.sql(f"select cast(v as {kind}) as label from values (0), (2), (null) as t(v)")
    out = OneHotTransformer(3, input_col="label", output_col="out").transform(df)
    assert column(out) == [[1, 0, 0], [0, 0, 1], None]
    assert dict(out.dtypes)["out"] == "array<double>"


@pytest.mark.parametrize("label", [3.0, -1.0, 0.5, NAN, 1e20])
def test_one_hot_refuses_labels_that_are_no_class(spark, label):
    df = spark.createDataFrame([(label,)], "label double")
    with pytest.raises(PySparkException, match="class indices from 0 to 2 in column 'label'"):
        OneHotTransformer(3, "label", "out").transform(df).collect()


def test_one_hot_refuses_strings_and_a_size_that_is_none(spark):
    with pytest.raises(TypeError, match="expected numbers in column"):
        OneHotTransformer(3, "label", "out").transform(spark.sql("select '1' as label"))
    with pytest.raises(ValueError, match="positive integer"):
        OneHotTransformer(0, "label", "out")


def test_label_index_takes_the_first_value_over_the_threshold_else_the_largest(spark):
    rows = ([0.1, 0.7, 0.9], [0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.0, 0.0, 0.0], [-3.0, -1.0, -2.0])
    out = LabelIndexTransformer(3, input_col="p", output_col="out", default_index=2)
    assert column(out.transform(predictions(spark, *rows))) == [1.0, 1.0, 0.0, 2.0, 2.0]


def test_label_index_ignores_nan_and_keeps_null(spark):
    rows = ([NAN, 0.3, 0.9], [NAN, NAN, NAN], [0.9, None, 0.1], None)
    out = LabelIndexTransformer(3, "p", "out").transform(predictions(spark, *rows))
    assert column(out) == [2.0, 0.0, None, None]


def test_label_index_takes_vectors_and_float_arrays(spark):
    df = vectors(spark, Vectors.dense(0.1, 0.9), SparseVector(2, {0: 0.3}))
    assert column(LabelIndexTransformer(2, "x", "out").transform(df)) == [1.0, 0.0]
    df = spark.sql("select array(float(0.1), float(0.9)) as prediction")
    assert column(LabelIndexTransformer(2).transform(df), "prediction_index") == [1.0]


def test_label_index_with_a_threshold_below_zero_decides_at_the_first_value_above_it(spark):
    out = LabelIndexTransformer(2, "p", "out", activation_threshold=-1.0)
    assert column(out.transform(predictions(spark, [-2.0, -0.5]))) == [1.0]


def test_label_index_refuses_rows_of_another_length(spark):
    with pytest.raises(PySparkException, match=r"expected output_dim=3 values in column 'p'. Received: 2"):
        LabelIndexTransformer(3, "p", "out").transform(predictions(spark, [0.1, 0.9])).collect()


# --- shapes


def test_reshape_nests_rows_in_row_major_order(spark):
    df = vectors(spark, Vectors.dense(range(12)), None)
    out = ReshapeTransformer("x", "out", (2, 3, 2)).transform(df)
    grid = [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, 11]]]
    assert column(out) == [grid, None]
    image = ReshapeTransformer("x", "out", (4, 3, 1)).transform(df)
    assert column(image)[0][1] == [[3.0], [4.0], [5.0]]


def test_reshape_finds_a_free_length_and_keeps_the_type_of_arrays(spark):
    df = spark.sql("select array(1, 2, 3, 4, 5, 6) as x")
    for shape, expected in (
        ((-1, 2), [[1, 2], [3, 4], [5, 6]]),
        ((2, -1), [[1, 2, 3], [4, 5, 6]]),
        ((-1,), [1, 2, 3, 4, 5, 6]),
    ):
        out = ReshapeTransformer("x", "out", shape).transform(df)
        assert column(out) == [expected]
    assert dict(ReshapeTransformer("x", "out", (2, 3)).transform(df).dtypes)["out"] == "array<array<int>>"


@pytest.mark.parametrize("shape", [(2, 3), (-1, 3), (5,)])
def test_reshape_refuses_rows_that_do_not_fill_the_shape(spark, shape):
    df = spark.sql("select array(1, 2, 3, 4) as x")
    with pytest.raises(PySparkException, match=r"rows that fill shape .* Received: 4 values"):
        ReshapeTransformer("x", "out", shape).transform(df).collect()


def test_reshape_refuses_a_shape_that_is_none():
    for shape in ((0, 2), (-1, -1), ()):
        with pytest.raises(ValueError, match="Expected a shape"):
            ReshapeTransformer("x", "out", shape)


def test_dense_makes_sparse_vectors_dense_and_lets_arrays_be(spark):
    df = vectors(spark, SparseVector(3, {1: 2.0}), None)
    (first, second) = column(DenseTransformer("x", "out").transform(df))
    assert (type(first), first, second) == (DenseVector, DenseVector([0, 2, 0]), None)
    array = DenseTransformer("x", "out").transform(spark.sql("select array(1, 2) as x"))
    assert column(array) == [[1, 2]]


# --- life in Spark ML

STAGES = [
    OneHotTransformer(3, "label", "encoded"),
    MinMaxTransformer(0, 4, 0, 1, "x", "scaled"),
    StandardTransformer(["scaled"]),
    ReshapeTransformer("scaled", "matrix", (2, 2, 1)),
    DenseTransformer("x", "dense"),
    BinaryLabelTransformer("label", "binary", 1),
    LabelIndexTransformer(3, input_col="encoded", output_col="index"),
]


@pytest.fixture
def labeled(spark):
    df = vectors(spark, Vectors.dense(0, 1, 2, 4), Vectors.sparse(4, {0: 4.0}))
    return df.coalesce(1).withColumn("label", F.lit(1))


def test_a_pipeline_of_all_gives_the_same_rows_after_it_was_saved_and_loaded(labeled, tmp_path):
    model = Pipeline(stages=STAGES).fit(labeled)
    expected = model.transform(labeled).collect()
    model.write().overwrite().save(str(tmp_path / "pipeline"))
    loaded = PipelineModel.load(str(tmp_path / "pipeline"))
    assert [type(stage) for stage in loaded.stages] == [type(stage) for stage in STAGES]
    assert loaded.transform(labeled).collect() == expected
    assert expected[0]["index"] == 1.0


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: type(stage).__name__)
def test_each_saves_loads_copies_and_explains_itself(stage, tmp_path):
    stage.save(str(tmp_path / "stage"))
    loaded = type(stage).load(str(tmp_path / "stage"))
    params = {param.name: stage.getOrDefault(param) for param in stage.params if stage.isDefined(param)}
    assert {
        param.name: loaded.getOrDefault(param) for param in loaded.params if loaded.isDefined(param)
    } == params
    assert loaded.uid == stage.uid
    assert all(param.name in stage.explainParams() and param.doc for param in stage.params)


def test_params_given_to_transform_hold_for_that_call(labeled):
    stage = MinMaxTransformer(0, 4, 0, 1, "x", "out")
    assert column(stage.transform(labeled, {stage.nMax: 2.0}))[0] == DenseVector([0, 0.5, 1, 2])
    assert column(stage.transform(labeled))[0] == DenseVector([0, 0.25, 0.5, 1])
    assert column(stage.copy({stage.nMax: 4.0}).setOutputCol("o").transform(labeled), "o")[0] == DenseVector(
        [0, 1, 2, 4]
    )


def test_columns_with_dots_in_their_names_are_read_and_written(spark):
    df = spark.sql("select 51 as `a.b`")
    assert MinMaxTransformer(0, 255, 0, 1, "a.b", "c.d").transform(df).first()["c.d"] == 0.2
