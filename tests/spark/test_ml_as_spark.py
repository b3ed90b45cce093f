"""Models of `distkeras.ml` say what Spark's own models of the same weights say."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from pyspark.ml.base import PredictionModel, Predictor
from pyspark.ml.classification import (
    Classifier,
    LogisticRegression,
    LogisticRegressionModel,
    ProbabilisticClassificationModel,
)
from pyspark.ml.linalg import DenseVector, SparseVector
from pyspark.ml.regression import LinearRegression, RegressionModel, Regressor

from distkeras.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
)

MEASURES = (
    *("accuracy", "weightedPrecision", "weightedRecall", "weightedTruePositiveRate"),
    *("weightedFalsePositiveRate", "labels", "precisionByLabel", "recallByLabel"),
    *("truePositiveRateByLabel", "falsePositiveRateByLabel"),
)


def model_of(inputs, units, activation=None, kernel=None, bias=None):
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units, activation=activation)])
    if kernel is not None:
        model.set_weights([np.reshape(kernel, (inputs, units)), np.reshape(bias, (units,))])
    return model


def passing(units):
    return keras.Sequential([keras.Input((units,)), keras.layers.Activation("linear")])


@pytest.fixture(scope="module")
def df(spark):
    """Features, labels of two and of three classes, a number, and weights."""
    x = np.random.default_rng(0).normal(size=(120, 3))
    noise = np.random.default_rng(1).normal(size=120)
    rows = [
        (
            DenseVector(row),
            float(row[0] + e > 0),
            float(int(row[0] > 0) + int(row[1] + e > 0)),
            float(row @ [1, 2, 3] + e),
            1 + i % 3 / 2,
        )
        for i, (row, e) in enumerate(zip(x, noise, strict=True))
    ]
    frame = spark.createDataFrame(rows, ["features", "two", "three", "number", "weight"]).coalesce(1).cache()
    frame.count()
    yield frame
    frame.unpersist()


@pytest.mark.parametrize(("label", "units", "activation"), [("two", 1, "sigmoid"), ("three", 3, "softmax")])
def test_a_classifier_says_what_logistic_regression_says(df, label, units, activation, tmp_path):
    fitted = LogisticRegression(labelCol=label, weightCol="weight", maxIter=5, regParam=0.01).fit(df)
    # Loaded, it is without its training summary, which Spark cannot always send to its tasks.
    fitted.save(str(tmp_path / "model"))
    theirs = LogisticRegressionModel.load(str(tmp_path / "model"))
    multinomial = theirs.coefficientMatrix.toArray().T
    network = model_of(3, units, activation, multinomial, theirs.interceptVector.toArray())
    ours = KerasClassificationModel(network, labelCol=label, weightCol="weight")
    assert (ours.numClasses, ours.numFeatures) == (theirs.numClasses, theirs.numFeatures)
    for vector in (df.first().features, SparseVector(3, {1: 2.0})):
        assert ours.predict(vector) == theirs.predict(vector)
        np.testing.assert_allclose(
            ours.predictProbability(vector), theirs.predictProbability(vector), rtol=1e-4
        )
    expected, found = theirs.evaluate(df), ours.evaluate(df)
    for measure in MEASURES if units == 3 else ("accuracy",):
        assert getattr(found, measure) == pytest.approx(getattr(expected, measure)), measure
    assert found.weightedFMeasure(2.0) == pytest.approx(expected.weightedFMeasure(2.0))
    assert (found.labelCol, found.predictionCol, found.weightCol) == (label, "prediction", "weight")
    assert found.predictions.columns == [*df.columns, "rawPrediction", "probability", "prediction"]
    if units == 1:
        assert found.areaUnderROC == pytest.approx(expected.areaUnderROC, rel=1e-3)
        assert 0 < found.areaUnderPR <= 1
    else:
        with pytest.raises(ValueError, match=r"for the classes 0 and 1.*labels=\[0\.0, 1\.0, 2\.0\]"):
            found.areaUnderROC  # noqa: B018
    thresholds = [0.2, 0.8, 0.5][: ours.numClasses]
    rows = theirs.setThresholds(thresholds).transform(df).select("prediction").collect()
    judged = ours.setThresholds(thresholds).transform(df).select("prediction").collect()
    assert judged == rows
    assert found.predictions.select("prediction").collect() != rows


def test_a_regressor_says_what_linear_regression_says(df):
    theirs = LinearRegression(labelCol="number", weightCol="weight").fit(df)
    network = model_of(3, 1, None, theirs.coefficients.toArray(), theirs.intercept)
    ours = KerasRegressionModel(network, labelCol="number", weightCol="weight", predictionCol="")
    assert ours.numFeatures == theirs.numFeatures
    vector = df.first().features
    assert ours.predict(vector) == pytest.approx(theirs.predict(vector), rel=1e-5)
    nested = df.selectExpr("features", "struct(number AS n) AS `a.b`", "weight AS W")
    ours.setLabelCol("`a.b`.n").setWeightCol("w")
    expected, found = theirs.evaluate(df), ours.evaluate(nested)
    errors = ("rootMeanSquaredError", "meanSquaredError", "meanAbsoluteError")
    for measure in ("r2", "explainedVariance", *errors):
        assert getattr(found, measure) == pytest.approx(getattr(expected, measure), rel=1e-4), measure


@pytest.mark.parametrize("thresholds", [None, [0.5, 2.0, 0.0], [1.0, 0.1, 3.0]])
@pytest.mark.parametrize("logits", [False, True])
def test_one_vector_gives_the_row_that_transform_gives(spark, logits, thresholds):
    rows = [(0.25, 0.75, 0.0), (0.5, 0.0, 0.5), (0.1, float("nan"), 0.2), (1.0, 3.0, 1000.0)]
    for units in (1, 3):
        frame = spark.createDataFrame([([*row[:units]],) for row in rows], "features array<float>").coalesce(
            1
        )
        model = KerasClassificationModel(passing(units), fromLogits=logits)
        if thresholds:
            model.setThresholds(thresholds[-model.numClasses :])
        for row in model.transform(frame).collect():
            np.testing.assert_allclose(model.predictRaw(row.features), row.rawPrediction, rtol=1e-12)
            np.testing.assert_allclose(model.predictProbability(row.features), row.probability, rtol=1e-12)
            np.testing.assert_equal(model.predict(row.features), row.prediction)


def test_a_threshold_of_zero_is_reached_by_any_probability_above_zero(spark):
    rows = [([0.98, 0.01, 0.01],), ([0.7, 0.3, 0.0],)]
    frame = spark.createDataFrame(rows, "features array<float>").coalesce(1)
    model = KerasClassificationModel(passing(3), thresholds=[1.0, 0.1, 0.0])
    assert [row.prediction for row in model.transform(frame).collect()] == [2.0, 1.0]


def test_thresholds_of_another_number_than_classes_are_refused_before_training(df):
    classifier = KerasClassifier(
        model=model_of(3, 1, "sigmoid"), labelCol="two", workerOptimizer="sgd", thresholds=[1, 1, 1]
    )
    with pytest.raises(ValueError, match=r"each of 2 classes. Received: thresholds=\[1\.0, 1\.0, 1\.0\]"):
        classifier.fit(df)
    for wrong in ([-1.0, 1.0], [0.0, 0.0], []):
        with pytest.raises(ValueError, match="one threshold above 0 per class"):
            classifier.setThresholds(wrong)


def test_they_are_what_spark_calls_them():
    assert isinstance(KerasClassifier(), Classifier)
    assert isinstance(KerasRegressor(), Regressor)
    assert isinstance(KerasClassificationModel(), ProbabilisticClassificationModel)
    assert isinstance(KerasRegressionModel(), RegressionModel)
    for stage in (KerasClassifier(), KerasRegressor()):
        assert isinstance(stage, Predictor)
    for stage in (KerasClassificationModel(), KerasRegressionModel()):
        assert isinstance(stage, PredictionModel)
    # Params stay those of this project, which take several columns.
    assert KerasClassifier(featuresCol=["a", "b"]).getFeaturesCol() == ["a", "b"]


def test_the_shape_of_the_input_says_how_many_features_there_are():
    image = keras.Sequential([keras.Input((2, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    model = KerasRegressionModel(image)
    assert model.numFeatures == 6
    assert model.predict(DenseVector(np.arange(6.0))) == pytest.approx(
        float(image.predict(np.arange(6.0).reshape(1, 2, 3), verbose=0)[0, 0])
    )
    with pytest.raises(ValueError, match=r"fills the input of shape \(2, 3\).*shape \(5,\)"):
        model.predict(DenseVector(np.arange(5.0)))
    free = keras.Sequential([keras.Input((None, 2)), keras.layers.GlobalAveragePooling1D()])
    assert KerasModel(free).numFeatures == -1
    left, right = keras.Input((1,)), keras.Input((1,))
    two = KerasRegressionModel(keras.Model([left, right], keras.layers.Add()([left, right])))
    assert two.numFeatures == -1
    with pytest.raises(ValueError, match=r"without `padTo`, to predict one vector\. Use `transform`"):
        KerasRegressionModel(image, padTo=6).predict(DenseVector(np.arange(6.0)))
    with pytest.raises(ValueError, match="one input, to predict one vector"):
        two.predict(DenseVector([1.0, 2.0]))


def test_a_model_that_was_not_trained_here_has_no_summary():
    model = KerasClassificationModel(passing(2))
    assert not model.hasSummary
    with pytest.raises(RuntimeError, match="No training summary available for this KerasClassificationModel"):
        model.summary  # noqa: B018


def test_labels_that_are_no_classes_are_refused_by_column_and_row(df):
    halves = df.withColumn("two", df.two / 2)
    first = next(i for i, row in enumerate(df.collect()) if row.two == 1)
    one, several = model_of(3, 1, "sigmoid"), model_of(3, 3, "softmax")

    def own(true, predicted):
        return keras.ops.mean(keras.ops.square(predicted))

    message = rf"Column 'two', partition 0, row {first}: found the label 0\.5"
    for model, loss in ((one, None), (one, "mse"), (several, own)):
        classifier = KerasClassifier(model=model, labelCol="two", workerOptimizer="sgd", loss=loss)
        with pytest.raises(ValueError, match=message):
            classifier.fit(halves)
    with pytest.raises(ValueError, match="Column 'two' has a label that is not an integer"):
        KerasClassifier(model=several, labelCol="two", workerOptimizer="sgd").fit(halves)


def test_columns_that_are_there_are_refused_before_the_training(df):
    options = {"workerOptimizer": "sgd", "labelCol": "two", "loss": "mse"}
    for cls, units, name in (
        (KerasClassifier, 2, "probability"),
        (KerasClassifier, 2, "rawPrediction"),
        (KerasRegressor, 1, "prediction"),
    ):
        with pytest.raises(ValueError, match=f"has a column '{name}' already"):
            cls(model=model_of(3, units), **options).fit(df.withColumnRenamed("three", name))
