"""The evaluators: golden numbers, edges, and life in Spark ML."""

from __future__ import annotations

import inspect
import math

import keras
import numpy as np
import pytest
from pyspark.ml.functions import array_to_vector

from distkeras import evaluators, transformers
from distkeras.evaluators import AccuracyEvaluator, AUCEvaluator, F1Evaluator, LossEvaluator
from distkeras.transformers import OneHotTransformer

EXAMPLES = {
    "inputCol": "a",
    "outputCol": "b",
    "inputCols": ["a"],
    "outputDim": 3,
    "shape": [2, -1],
    "label": "x",
    "isVector": True,
    **dict.fromkeys(("oMin", "oMax", "nMin", "nMax"), 1.0),
}
"""A value for every Param that has no default."""


@pytest.fixture(scope="module")
def judged(spark):
    rows = [(0, 0.0), (1, 1.0), (1, 0.0), (0, 0.0)]
    return spark.createDataFrame(rows, "label int, prediction double")


@pytest.fixture(scope="module")
def scored(spark):
    rows = [(0, [0.9, 0.1], 0.1), (1, [0.4, 0.6], 0.6), (0, [0.3, 0.7], 0.7), (1, [0.2, 0.8], 0.8)]
    return spark.createDataFrame(rows, "label int, prediction array<float>, one double")


def test_accuracy_is_the_share_of_right_answers(judged):
    assert AccuracyEvaluator().evaluate(judged) == 0.75
    assert AccuracyEvaluator("prediction", "label").evaluate(judged) == 0.75


def test_a_null_or_nan_is_a_wrong_answer(spark):
    rows = [(1.0, None), (None, None), (math.nan, math.nan), (2.0, 2.0)]
    df = spark.createDataFrame(rows, "label double, prediction double")
    assert AccuracyEvaluator().evaluate(df) == 0.25


def test_accuracy_compares_strings_with_strings_alone(spark):
    df = spark.sql("select 'a' as label, 'a' as prediction, 1 as number")
    assert AccuracyEvaluator().evaluate(df) == 1.0
    with pytest.raises(TypeError, match="Received: strings"):
        AccuracyEvaluator(prediction_col="number").evaluate(df)


def test_what_cannot_be_judged_is_refused(judged, scored):
    with pytest.raises(TypeError, match="use LabelIndexTransformer"):
        AccuracyEvaluator().evaluate(scored)
    with pytest.raises(ValueError, match="Did you mean 'prediction'"):
        AccuracyEvaluator(prediction_col="predictions").evaluate(judged)
    with pytest.raises(ValueError, match="an empty DataFrame"):
        AccuracyEvaluator().evaluate(judged.limit(0))
    with pytest.raises(ValueError, match="Received: loss='hinge'"):
        LossEvaluator(loss="hinge")


def test_f1_is_that_of_each_class_weighted_by_its_labels(judged):
    # Class 0: precision 2/3, recall 1, F1 0.8; class 1: precision 1, recall 1/2, F1 2/3.
    assert F1Evaluator().evaluate(judged) == pytest.approx((0.8 + 2 / 3) / 2)


@pytest.mark.parametrize("column", ["prediction", "one", "dense"])
def test_auc_takes_arrays_vectors_and_numbers(scored, column):
    df = scored.withColumn("dense", array_to_vector("prediction"))
    # Of the four pairs of a positive and a negative, one is in the wrong order.
    assert AUCEvaluator(prediction_col=column).evaluate(df) == pytest.approx(0.75)


def test_losses_equal_those_of_keras(scored, judged):
    rows = scored.collect()
    labels = np.array([row["label"] for row in rows])
    probabilities = np.array([row["prediction"] for row in rows])
    expected = float(
        np.mean(
            keras.ops.convert_to_numpy(keras.losses.sparse_categorical_crossentropy(labels, probabilities))
        )
    )
    assert LossEvaluator().evaluate(scored) == pytest.approx(expected, rel=1e-5)
    one_hot = OneHotTransformer(2, "label", "one_hot").transform(scored)
    categorical = LossEvaluator("one_hot", loss="categorical_crossentropy").evaluate(one_hot)
    assert categorical == pytest.approx(expected, rel=1e-5)
    binary = LossEvaluator(prediction_col="one", loss="binary_crossentropy").evaluate(scored)
    assert binary == pytest.approx(expected, rel=1e-5)
    assert LossEvaluator(loss="mse").evaluate(judged) == 0.25
    assert LossEvaluator(loss="mean_absolute_error").evaluate(judged) == 0.25


def test_a_single_sigmoid_output_in_an_array_is_the_probability_of_class_1(spark):
    df = spark.createDataFrame([(1, [0.5]), (0, [0.5])], "label int, prediction array<float>")
    assert LossEvaluator(loss="binary_crossentropy").evaluate(df) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "evaluator",
    [AccuracyEvaluator("l", "p"), F1Evaluator("l"), AUCEvaluator("l"), LossEvaluator("l", loss="mae")],
)
def test_each_saves_loads_and_knows_its_direction(evaluator, tmp_path):
    evaluator.save(str(tmp_path / "evaluator"))
    loaded = type(evaluator).load(str(tmp_path / "evaluator"))
    assert {p.name: v for p, v in loaded.extractParamMap().items()} == {
        p.name: v for p, v in evaluator.extractParamMap().items()
    }
    assert evaluator.isLargerBetter() == (not isinstance(evaluator, LossEvaluator))


def test_every_param_of_transformers_and_evaluators_has_a_getter_and_a_setter_that_chains():
    stages = [getattr(module, name) for module in (transformers, evaluators) for name in module.__all__]
    made = [stage() for stage in stages if not inspect.isabstract(stage)]
    assert len(made) >= 11
    for stage in made:
        for param in stage.params:
            title = param.name[0].upper() + param.name[1:]
            get, set_ = getattr(stage, f"get{title}"), getattr(stage, f"set{title}")
            value = get() if stage.isDefined(param) else EXAMPLES[param.name]
            assert set_(value) is stage
            assert get() == value
