"""Keras models as estimators and models of Spark ML: Params, training, columns."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras import ServerOptions, StopWhen
from distkeras.algorithms import ADAG, DOWNPOUR, DynSGD
from distkeras.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
)

ROWS = 240
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
Y = (X[:, 0] > 0).astype("float64")
CLASSES = [KerasEstimator, KerasClassifier, KerasRegressor]
MODELS = [KerasModel, KerasClassificationModel, KerasRegressionModel]


def network(units=2, activation="softmax"):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation=activation)])


def passing(units=2):
    """A model whose output is its input."""
    return keras.Sequential([keras.Input((units,)), keras.layers.Activation("linear")])


@pytest.fixture(scope="module")
def df(spark):
    rows = {"id": range(ROWS), "features": list(X), "label": Y, "held": np.arange(ROWS) % 4 == 0}
    frame = spark.createDataFrame(pd.DataFrame(rows)).repartitionByRange(2, "id").cache()
    frame.count()
    yield frame
    frame.unpersist()


def held_rows():
    return X[::4], Y[::4]


# --- Params


@pytest.mark.parametrize("cls", CLASSES + MODELS, ids=lambda cls: cls.__name__)
def test_every_param_has_a_document_a_getter_and_a_setter(cls):
    stage = cls()
    assert len(stage.params) >= 20
    for param in stage.params:
        title = param.name[0].upper() + param.name[1:]
        assert param.doc
        assert param.name in stage.explainParams()
        assert callable(getattr(stage, f"get{title}"))
        assert callable(getattr(stage, f"set{title}"))


def test_params_are_given_by_name_and_come_back_as_they_were_given():
    optimizer, server, model = keras.optimizers.Adam(0.01), ServerOptions(ports=(7000, 7001)), network()
    estimator = KerasEstimator(model=model, algorithm=ADAG(7), workerOptimizer=optimizer, server=server)
    estimator.setLoss("mse").setNumWorkers(3).setMetrics(["mae", keras.metrics.RootMeanSquaredError()])
    assert estimator.getModel() is model
    assert estimator.getWorkerOptimizer() is optimizer
    assert estimator.getServer() is server
    assert (estimator.getAlgorithm(), estimator.getLoss(), estimator.getNumWorkers()) == (ADAG(7), "mse", 3)
    assert estimator.setAlgorithm("downpour").getAlgorithm() == DOWNPOUR()
    assert isinstance(estimator.getMetrics()[1], keras.metrics.RootMeanSquaredError)
    assert KerasEstimator().getAlgorithm() == DynSGD()
    with pytest.raises(TypeError, match="forces keyword arguments"):
        KerasEstimator(model)


@pytest.mark.parametrize(("given", "kept"), [(0, 0), (1, 1), (True, 1), (False, 0), ("auto", "auto")])
def test_verbose_is_taken_as_trainers_take_it(given, kept):
    assert KerasClassifier(verbose=given).getVerbose() == kept


def test_a_copy_has_params_of_its_own():
    estimator = KerasClassifier(model=network(), numEpoch=2)
    copy = estimator.copy({estimator.learningRate: 0.5, estimator.algorithm: ADAG(3)})
    assert copy.uid == estimator.uid
    assert (copy.getLearningRate(), copy.getAlgorithm(), copy.getNumEpoch()) == (0.5, ADAG(3), 2)
    assert not estimator.isDefined("learningRate")
    assert estimator.getAlgorithm() == DynSGD()


@pytest.mark.parametrize(
    ("param", "value", "message"),
    [
        ("numWorkers", 0, "positive integer"),
        ("learningRate", float("nan"), "finite"),
        ("algorithm", "DynSDG", "Did you mean 'DynSGD'"),
        ("algorithm", object(), "have a JSON form"),
        ("model", "model.keras", "Expected a Keras model"),
        ("compression", "int9", "Did you mean 'int8'"),
        ("server", "here", "ServerOptions"),
        ("resources", 4, "Resources"),
        ("maxWorkers", 0, "positive integer"),
        ("featuresCol", ["a", 1], "a list of columns"),
        ("featuresCol", 5, "a list of columns"),
        ("classWeight", [1.0, 2.0], "by class index"),
        ("loss", 5, "an object or its name"),
        ("algorithm", 5, "an object or its name"),
        ("metrics", "accuracy", "list or a dict of metrics"),
        ("workerOptimizer", "nosuch", "has no optimizer of this name. Known: .*sgd"),
        ("workerOptimizer", "adagrat", "Did you mean 'adagrad'"),
        ("verbose", 3, '0, 1, 2 or "auto"'),
        ("customObjects", ["Layer"], "by name"),
        ("customObjects", {"Layer": "Layer"}, "a class or a function as 'Layer'"),
        ("trainerOptions", {"custom_objects": {}}, "as the Param 'customObjects'"),
        ("trainerOptions", {"num_workers": 3}, "as the Param 'numWorkers'"),
    ],
)
def test_a_param_of_another_kind_is_refused_at_once(param, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        KerasEstimator(**{param: value})


@pytest.mark.parametrize("cls", [KerasClassifier, KerasRegressor, *MODELS], ids=lambda cls: cls.__name__)
def test_a_param_that_there_is_not_is_refused(cls):
    with pytest.raises(TypeError, match=f"{cls.__name__} has no Param 'numWorker'"):
        cls(numWorker=1)


# --- training


def test_held_rows_are_judged_and_not_trained_on(df):
    classifier = KerasClassifier(
        model=network(),
        algorithm=DOWNPOUR(),
        workerOptimizer="adam",
        learningRate=0.1,
        communicationWindow=2,
        numEpoch=3,
        batchSize=16,
        seed=0,
        validationIndicatorCol="held",
        classWeight={0: 1.0, 1: 2.0},
        trainerOptions={"on_bad_update": "skip"},
    )
    model = classifier.fit(df)
    assert isinstance(model, KerasClassificationModel)
    assert (model.uid, model.getNumEpoch()) == (classifier.uid, 3)
    assert sum(window.samples for window in model.history) == 3 * ROWS * 3 / 4
    assert {window.steps for window in model.history} <= {1, 2}
    x, y = held_rows()
    expected = model.getModel().evaluate(x, y, verbose=0, return_dict=True)
    assert model.validation_metrics == pytest.approx(expected, rel=1e-4)
    summary, rest = model.summary, df.where("not held")
    assert summary is model.summary
    assert summary.history is model.history
    assert summary.totalIterations == sum(window.steps for window in model.history) > 3 * 10
    assert summary.objectiveHistory[-1] < summary.objectiveHistory[0]
    assert (summary.numUpdates, summary.trainingTime > 0) == (len(model.history), True)
    judge = MulticlassClassificationEvaluator(metricName="accuracy")
    assert summary.accuracy == pytest.approx(judge.evaluate(model.transform(rest)))
    out = model.transform(df)
    assert judge.evaluate(out) > 0.8
    assert BinaryClassificationEvaluator().evaluate(out) > 0.95


class Counts(keras.callbacks.Callback):
    """Counts the epochs of all its copies, and the names in their logs."""

    seen: list[list[str]] = []  # noqa: RUF012 (shared by the copies that each `fit` gets)

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(sorted(logs))


def test_callbacks_validation_and_a_target_go_around_a_training(df):
    Counts.seen.clear()
    counts = Counts()
    estimator = KerasClassifier(
        model=network(),
        workerOptimizer="sgd",
        numWorkers=1,
        numEpoch=5,
        algorithm="Sequential",
        validationIndicatorCol="held",
        validationFreq=1,
        callbacks=[counts],
        stop={"val_loss": 100.0},
    )
    model = estimator.fit(df)
    assert Counts.seen == [["accuracy", "loss", "val_accuracy", "val_loss"]]  # The target ends it at once.
    assert counts.__dict__ == Counts().__dict__  # Each `fit` has copies.
    assert sum(window.samples for window in model.history) < 5 * ROWS
    with pytest.raises(ValueError, match="`validationIndicatorCol` or `validationSplit`, not both"):
        estimator.copy({estimator.validationSplit: 0.5}).fit(df)


def test_callbacks_are_saved_as_a_function_or_asked_for_again(tmp_path):
    estimator = KerasEstimator(
        model=network(), callbacks=[Counts()], stop=StopWhen(loss=0.1, minutes=2), validationSplit=0.25
    )
    estimator.save(str(tmp_path / "estimator"))
    loaded = KerasEstimator.load(str(tmp_path / "estimator"))
    assert loaded.getStop() == estimator.getStop()
    assert StopWhen(**loaded.getStop()).targets == {"loss": 0.1}
    assert loaded.getValidationSplit() == 0.25
    with pytest.raises(ValueError, match=r"set `callbacks` again.*Counts"):
        loaded.getCallbacks()
    for name, value, message in (
        ("callbacks", [1], "a list of Keras callbacks"),
        ("stop", {}, "a target or a time"),
        ("validationSplit", 1.0, "less than 1"),
        ("validateOn", "moon", '"driver" or "workers"'),
        ("resume", "yes", '"auto"'),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            KerasEstimator(**{name: value})


def test_learning_rate_and_weights_count(df):
    """Rows of weight 0 have labels that would be seen."""
    doubled = df.withColumn("weight", F.lit(1.0)).unionByName(
        df.withColumn("label", F.lit(1000.0)).withColumn("weight", F.lit(0.0))
    )
    model = network(1, None)
    regressor = KerasRegressor(
        model=model, workerOptimizer="sgd", learningRate=0.05, numWorkers=1, weightCol="weight", seed=0
    )
    fitted = regressor.setValidationIndicatorCol("held").fit(doubled)
    assert isinstance(fitted, KerasRegressionModel)
    assert fitted.validation_metrics["loss"] < 1
    assert fitted.summary.meanSquaredError < 1
    assert fitted.summary.totalIterations == sum(window.steps for window in fitted.history)
    out = fitted.transform(df)
    assert dict(out.dtypes)["prediction"] == "double"
    assert RegressionEvaluator().evaluate(out) < 1
    still = regressor.copy({regressor.learningRate: 0.0}).fit(doubled).getModel()
    for new, old in zip(still.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_models_of_several_inputs_and_outputs_are_trained(spark):
    left, right = keras.Input((1,), name="left"), keras.Input((1,), name="right")
    total = keras.layers.Dense(1, name="total")(keras.layers.Concatenate()([left, right]))
    gap = keras.layers.Subtract(name="gap")([left, right])
    estimator = KerasEstimator(
        model=keras.Model([left, right], {"total": total, "gap": gap}),
        workerOptimizer="sgd",
        loss={"total": "mse", "gap": "mae"},
        featuresCol=["a", "b"],
        labelCol={"total": "t", "gap": "g"},
        predictionCol="p",
        numWorkers=1,
    )
    frame = spark.range(40).selectExpr("id / 40 AS a", "0.5 AS b", "id / 40 + 0.5 AS t", "id / 40 - 0.5 AS g")
    out = estimator.fit(frame).transform(frame)
    assert out.columns == ["a", "b", "t", "g", "p_gap", "p_total"]
    first = out.first()
    assert first.p_gap == [pytest.approx(first.g)]


def test_what_cannot_be_trained_is_refused_before_anything_starts(df):
    with pytest.raises(ValueError, match="KerasClassifier needs `model`"):
        KerasClassifier().fit(df)
    with pytest.raises(ValueError, match="Did you mean 'held'"):
        KerasClassifier(model=network(), workerOptimizer="sgd", validationIndicatorCol="helt").fit(df)
    with pytest.raises(TypeError, match="Expected booleans"):
        KerasClassifier(model=network(), workerOptimizer="sgd", validationIndicatorCol="id").fit(df)
    with pytest.raises(ValueError, match="true in no row"):
        KerasClassifier(model=network(), workerOptimizer="sgd", validationIndicatorCol="held").fit(
            df.where("not held")
        )
    with pytest.raises(ValueError, match=r"some rows to train on.*true in every row"):
        KerasClassifier(model=network(), workerOptimizer="sgd", validationIndicatorCol="held").fit(
            df.where("held")
        )
    with pytest.raises(ValueError, match="Expected a `workerOptimizer`"):
        KerasClassifier(model=network(), learningRate=0.1).fit(df)
    with pytest.raises(ValueError, match="one output of one axis"):
        KerasClassifier(model=keras.Sequential([keras.Input((2, 2))]), workerOptimizer="sgd").fit(df)
    with pytest.raises(ValueError, match=r"one output of one unit.*Received: outputs of shape \[\(2,\)\]"):
        KerasRegressor(model=network(), workerOptimizer="sgd").fit(df)
    with pytest.raises(ValueError, match="one output of one unit"):
        KerasRegressionModel(network()).transform(df)


def test_a_stream_is_not_trained_on(spark):
    stream = spark.readStream.format("rate").load().selectExpr("array(value) AS features", "value AS label")
    estimator = KerasEstimator(model=passing(1), workerOptimizer="sgd", loss="mse")
    with pytest.raises(ValueError, match="a streaming one"):
        estimator.fit(stream)


# --- columns


def scores(spark, *rows, **params):
    values = [([float(value) for value in row],) for row in rows]
    frame = spark.createDataFrame(values, "features array<float>").coalesce(1)
    return KerasClassificationModel(passing(len(rows[0])), **params).transform(frame).collect()


def test_probabilities_give_their_logarithms_and_the_first_largest_class(spark):
    first, tie, broken = scores(spark, (0.25, 0.75, 0.0), (0.5, 0.0, 0.5), (0.1, float("nan"), 0.2))
    assert first.probability.toArray().tolist() == [0.25, 0.75, 0.0]
    np.testing.assert_allclose(first.rawPrediction.toArray(), np.log([0.25, 0.75, 1e-38]))
    assert (first.prediction, tie.prediction) == (1.0, 0.0)
    assert np.isnan(broken.prediction)


def test_logits_give_their_softmax(spark):
    (row,) = scores(spark, (1.0, 3.0, 1000.0), fromLogits=True)
    assert row.rawPrediction.toArray().tolist() == [1, 3, 1000]
    np.testing.assert_allclose(row.probability.toArray(), [0, 0, 1], atol=1e-300)
    (row,) = scores(spark, (0.0, np.log(3)), fromLogits=True)
    np.testing.assert_allclose(row.probability.toArray(), [0.25, 0.75], rtol=1e-6)


def test_one_unit_gives_two_classes(spark):
    (row,) = scores(spark, (0.75,))
    np.testing.assert_allclose(row.probability.toArray(), [0.25, 0.75])
    np.testing.assert_allclose(row.rawPrediction.toArray(), [-np.log(3), np.log(3)])
    assert row.prediction == 1.0
    (row,) = scores(spark, (-np.log(3),), fromLogits=True)
    np.testing.assert_allclose(row.probability.toArray(), [0.75, 0.25], rtol=1e-6)
    assert row.prediction == 0.0


def test_an_empty_name_leaves_a_column_out_and_a_taken_one_is_refused(spark):
    (row,) = scores(spark, (0.25, 0.75), probabilityCol="", rawPredictionCol="raw")
    assert sorted(row.asDict()) == ["features", "prediction", "raw"]
    with pytest.raises(ValueError, match="has a column 'features' already"):
        scores(spark, (0.25, 0.75), probabilityCol="features")
    with pytest.raises(ValueError, match="has a column 'p' already, or would have two"):
        scores(spark, (0.25, 0.75), probabilityCol="p", predictionCol="p")


@pytest.mark.parametrize("cls", [KerasModel, KerasRegressionModel])
def test_a_model_whose_column_has_no_name_adds_none(df, cls):
    assert cls(network(1), predictionCol="").transform(df).columns == df.columns


def test_names_with_dots_and_backticks_are_taken_as_they_are(df):
    row = KerasRegressionModel(network(1), featuresCol="a.b`c", predictionCol="p`.q")
    predicted = row.transform(df.withColumnRenamed("features", "a.b`c"))
    assert predicted.columns[-1] == "p`.q"
    assert predicted.count() == ROWS


def test_a_model_runs_once_for_all_columns(df):
    out = (
        KerasClassificationModel(network()).transform(df).where("prediction = 1 and probability is not null")
    )
    plan = out._jdf.queryExecution().executedPlan().toString()
    assert plan.count("ArrowEvalPython") == 1
