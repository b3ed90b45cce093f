"""Estimators and models saved and loaded: alone, as stages, by any file system; and searched over."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.tuning import (
    CrossValidator,
    CrossValidatorModel,
    ParamGridBuilder,
    TrainValidationSplit,
    TrainValidationSplitModel,
)

from distkeras import Resources, ServerOptions
from distkeras.algorithms import DOWNPOUR, REGISTRY, Algorithm, LocalSGD, Ringmaster
from distkeras.ml import (
    KerasClassificationModel,
    KerasClassifier,
    KerasEstimator,
    KerasModel,
    KerasRegressionModel,
    KerasRegressor,
    LoadError,
)
from distkeras.moved import MOVED, Moved
from distkeras.transformers import MinMaxTransformer
from distkeras.wire.codecs import TopK

ROWS = 320
TABLE = "mounts"
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")


@dataclass(frozen=True)
class Halved(Algorithm):
    """c <- c + d / 2"""

    def apply(self, center, message, commit, state):
        center += message / 2
        return center


class Own:
    """Where Keras does not look for a layer, but `customObjects` says that it is."""

    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x


def network(*hidden):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((4,)), *hidden, keras.layers.Dense(2, activation="softmax")])


@pytest.fixture(scope="module")
def df(spark):
    rows = {"features": list(X), "label": (X[:, 0] > 0).astype("float64")}
    frame = spark.createDataFrame(pd.DataFrame(rows)).coalesce(2).cache()
    frame.count()
    yield frame
    frame.unpersist()


def params_of(stage):
    values = {param.name: stage.getOrDefault(param) for param in stage.params if stage.isDefined(param)}
    values.pop("model", None)
    return values


def predictions(model, frame):
    return [tuple(row) for row in model.transform(frame).collect()]


# --- alone


@pytest.mark.parametrize("cls", [KerasModel, KerasClassificationModel, KerasRegressionModel])
def test_a_model_predicts_the_same_bits_after_it_was_saved_and_loaded(cls, df, tmp_path):
    units = 1 if cls is KerasRegressionModel else 3
    keras.utils.set_random_seed(5)
    model = cls(keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)]), predictionCol="p")
    model.validation_metrics = {"loss": 0.5}
    model.save(str(tmp_path / "model"))
    loaded = cls.load(str(tmp_path / "model"))
    assert (loaded.uid, params_of(loaded)) == (model.uid, params_of(model))
    assert loaded.validation_metrics == {"loss": 0.5}
    assert predictions(loaded, df) == predictions(model, df)


@pytest.mark.parametrize("cls", [KerasEstimator, KerasClassifier, KerasRegressor])
def test_an_estimator_keeps_model_and_params(cls, df, tmp_path):
    model = network()
    model.compile(keras.optimizers.SGD(0.02), "sparse_categorical_crossentropy")
    estimator = cls(
        model=model,
        algorithm=Ringmaster(4, delay_threshold=3.0),
        workerOptimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
        loss=keras.losses.Huber(delta=0.7),
        metrics=["mae", keras.metrics.RootMeanSquaredError(name="error")],
        featuresCol=["features"],
        compression=TopK(density=0.25),
        server=ServerOptions(ports=(7000, 7001)),
        minWorkers=2,
        maxWorkers=3,
        resources=Resources(cores=2),
        numWorkers=3,
        classWeight={0: 1.0, 1: 2.5},
        customObjects={"Doubled": Own.Doubled, "network": network},
        trainerOptions={"num_parameter_servers": 2},
    )
    estimator.write().overwrite().save(str(tmp_path / "estimator"))
    loaded = cls.load(str(tmp_path / "estimator"))
    assert (loaded.uid, params_of(loaded)) == (estimator.uid, params_of(estimator))
    assert loaded.getAlgorithm() == Ringmaster(4, delay_threshold=3.0)
    assert loaded.getCompression() == TopK(density=0.25)
    assert loaded.getLoss()(np.zeros((1, 1)), np.full((1, 1), 10.0)) == pytest.approx(0.7 * (10 - 0.35))
    assert loaded.getServer() == ServerOptions(ports=(7000, 7001))
    assert (loaded.getMinWorkers(), loaded.getMaxWorkers()) == (2, 3)
    assert loaded.getResources() == Resources(cores=2)
    assert loaded.getWorkerOptimizer().get_config() == estimator.getWorkerOptimizer().get_config()
    assert loaded.getMetrics()[1].name == "error"
    assert loaded.getCustomObjects() == {"Doubled": Own.Doubled, "network": network}
    assert loaded.getModel().optimizer.get_config()["learning_rate"] == pytest.approx(0.02)
    for old, new in zip(model.get_weights(), loaded.getModel().get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_rule_can_be_a_saved_param(name):
    form = json.loads(json.dumps(KerasEstimator(algorithm=REGISTRY[name]()).getOrDefault("algorithm")))
    assert KerasEstimator(algorithm=form).getAlgorithm() == REGISTRY[name]()


def test_what_is_saved_is_json_and_what_keras_itself_saves(tmp_path):
    KerasModel(network()).save(str(tmp_path / "model"))
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {name for name in files if not Path(name).name.startswith(".")} == {
        "model/metadata/part-00000",
        "model/model.keras",
    }
    saved = json.loads((tmp_path / "model/metadata/part-00000").read_text())["distkeras"]
    assert (saved["format"], saved["keras"]) == (1, keras.__version__)
    with zipfile.ZipFile(tmp_path / "model/model.keras") as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".json", ".h5"}
    assert keras.saving.load_model(tmp_path / "model/model.keras").output_shape == (None, 2)


# --- addresses


def test_what_is_there_is_kept_unless_it_is_to_be_overwritten(df, tmp_path):
    address = (tmp_path / "model").as_uri()
    first, second = KerasModel(network()), KerasRegressor(numEpoch=4)
    first.save(address)
    with pytest.raises(FileExistsError, match="overwrite"):
        second.save(address)
    second.write().overwrite().save(address)
    assert KerasRegressor.load(address).getNumEpoch() == 4
    assert not (tmp_path / "model/model.keras").exists()


def test_addresses_that_hadoop_does_not_know_go_through_fsspec(df):
    model = KerasModel(network())
    for _ in range(2):
        model.write().overwrite().save("memory://models/one")
    assert predictions(KerasModel.load("memory://models/one"), df) == predictions(model, df)
    with pytest.raises(FileExistsError):
        model.save("memory://models/one")
    with pytest.raises(ValueError, match=r"Hadoop or fsspec supports.*nowhere://"):
        model.save("nowhere://models/one")


def test_models_and_pipelines_are_saved_to_another_file_system_of_hadoop(spark, df, tmp_path):
    """A mount table, which knows no path of the local disk but those mounted."""
    mounts = {f"fs.viewfs.mounttable.{TABLE}.link./models": tmp_path.as_uri()}
    settings = spark.sparkContext._jsc.hadoopConfiguration()
    for name, value in mounts.items():
        settings.set(name, value)
    try:
        address = f"viewfs://{TABLE}/models/pipeline"
        pipeline = PipelineModel([MinMaxTransformer(-4, 4, 0, 1, "features", "x"), KerasModel(network())])
        pipeline.stages[1].setFeaturesCol("x")
        for _ in range(2):
            pipeline.write().overwrite().save(address)
        assert predictions(PipelineModel.load(address), df) == predictions(pipeline, df)
        assert (tmp_path / "pipeline/stages").is_dir()
        with pytest.raises(FileExistsError, match="overwrite"):
            KerasModel(network()).save(address)
        with pytest.raises(OSError, match=rf"Hadoop cannot use 'viewfs://{TABLE}/elsewhere"):
            KerasModel(network()).save(f"viewfs://{TABLE}/elsewhere/model")
    finally:
        for name in mounts:
            settings.unset(name)


RELEASES = sorted((Path(__file__).parents[1] / "formats").glob("*/estimator"))


@pytest.mark.parametrize("saved", RELEASES, ids=lambda path: path.parent.name)
def test_an_estimator_that_an_earlier_release_saved_is_loaded(saved):
    loaded = KerasEstimator.load(str(saved))
    assert loaded.getAlgorithm() == LocalSGD()
    assert (loaded.getBatchSize(), loaded.getNumEpoch(), loaded.getLoss()) == (8, 3, "mse")
    assert (loaded.getMetrics(), loaded.getCompression()) == (["mae"], "int8")


def test_what_was_saved_under_the_old_name_of_a_param_is_read_under_the_new_one(tmp_path, monkeypatch):
    KerasEstimator(model=network(), batchSize=8).save(str(tmp_path / "saved"))
    metadata = tmp_path / "saved/metadata/part-00000"
    (tmp_path / "saved/metadata/.part-00000.crc").unlink(missing_ok=True)
    saved = json.loads(metadata.read_text())
    saved["paramMap"]["rowsAtOnce"] = saved["paramMap"].pop("batchSize")
    metadata.write_text(json.dumps(saved))
    monkeypatch.setattr(
        KerasEstimator, MOVED, (Moved("rowsAtOnce", "batchSize", since="0.2", gone_in="0.4"),), raising=False
    )
    assert KerasEstimator.load(str(tmp_path / "saved")).getBatchSize() == 8


# --- what cannot be read


def test_what_cannot_be_read_says_why(tmp_path):
    address = str(tmp_path / "model")
    with pytest.raises(LoadError, match="does not exist"):
        KerasModel.load(address)
    KerasModel(network()).save(address)
    with pytest.raises(LoadError, match=r"Expected a distkeras\.ml\.estimator\.KerasEstimator"):
        KerasEstimator.load(address)
    metadata = tmp_path / "model/metadata/part-00000"
    (tmp_path / "model/metadata/.part-00000.crc").unlink(missing_ok=True)
    newer = json.loads(metadata.read_text())
    newer["distkeras"] |= {"format": 2, "version": "9.0"}
    metadata.write_text(json.dumps(newer))
    with pytest.raises(LoadError, match=r"format 2 .*saved by distkeras 9.0. Upgrade"):
        KerasModel.load(address)


def test_what_was_damaged_or_saved_by_others_says_so(tmp_path):
    model = KerasModel(network())
    Pipeline(stages=[]).save(str(tmp_path / "other"))
    with pytest.raises(LoadError, match="distkeras has saved nothing here"):
        KerasModel.load(str(tmp_path / "other"))
    for damage in ("{", "[1]"):
        model.write().overwrite().save(tmp_path / "model")
        (tmp_path / "model/metadata/.part-00000.crc").unlink(missing_ok=True)
        (tmp_path / "model/metadata/part-00000").write_text(damage)
        with pytest.raises(LoadError, match="Expected the JSON object"):
            KerasModel.load(tmp_path / "model")
    model.write().overwrite().save(tmp_path / "model")
    archive = tmp_path / "model/model.keras"
    (tmp_path / "model/.model.keras.crc").unlink(missing_ok=True)
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(LoadError, match="cannot load the model at"):
        KerasModel.load(tmp_path / "model")
    archive.unlink()
    with pytest.raises(LoadError, match="A saved file is missing"):
        KerasModel.load(tmp_path / "model")


def test_a_model_of_another_keras_is_read_where_it_can_be_and_else_names_both_versions(df, tmp_path):
    model = KerasModel(network())
    model.save(tmp_path / "model")
    for name in ("metadata/.part-00000.crc", ".model.keras.crc"):
        (tmp_path / "model" / name).unlink(missing_ok=True)
    metadata, archive = tmp_path / "model/metadata/part-00000", tmp_path / "model/model.keras"
    saved = json.loads(metadata.read_text())
    saved["distkeras"]["keras"] = "9.1"
    metadata.write_text(json.dumps(saved))
    assert predictions(KerasModel.load(tmp_path / "model"), df) == predictions(model, df)
    with zipfile.ZipFile(archive) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data.replace(b'"Dense"', b'"Denser"'))
    with pytest.raises(LoadError, match=rf"Keras {keras.__version__} cannot load .* Keras 9.1 saved"):
        KerasModel.load(tmp_path / "model")


def test_classes_of_the_user_are_found_by_keras_or_asked_for(df, tmp_path, spark):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    def squared(true, predicted):
        return keras.ops.square(true - predicted)

    estimator = KerasEstimator(
        model=network(Doubled()), algorithm=Halved(3), loss=squared, workerOptimizer="sgd", numWorkers=1
    )
    estimator.save(str(tmp_path / "estimator"))
    model = KerasModel(estimator.getModel())
    model.save(str(tmp_path / "model"))
    with pytest.raises(LoadError, match="custom_object_scope"):
        KerasModel.load(str(tmp_path / "model"))
    with keras.saving.custom_object_scope({"Doubled": Doubled, "squared": squared}):
        loaded = KerasEstimator.load(str(tmp_path / "estimator"))
        assert (loaded.getAlgorithm(), loaded.getLoss()) == (Halved(3), squared)
        assert predictions(KerasModel.load(str(tmp_path / "model")), df) == predictions(model, df)
    forged = {"dataclass": "pathlib.Path", "config": {}}
    with pytest.raises(ValueError, match="a dataclass of distkeras"):
        KerasEstimator(algorithm=forged).getAlgorithm()
    lost = {"dataclass": "nowhere.Rule", "config": {}}
    with pytest.raises(ValueError, match=r"module 'nowhere'.*custom_object_scope"):
        KerasEstimator(algorithm=lost).getAlgorithm()


def test_custom_objects_are_saved_by_where_they_are_found_or_refused_by_name(spark, tmp_path):
    class Local(keras.layers.Layer):
        pass

    KerasModel(network(Own.Doubled())).save(str(tmp_path / "without"))
    with pytest.raises(LoadError, match="pass the class as `customObjects` before you save"):
        KerasModel.load(tmp_path / "without")
    model = KerasModel(network(Own.Doubled()), customObjects={"Doubled": Own.Doubled})
    model.save(str(tmp_path / "model"))
    loaded = KerasModel.load(tmp_path / "model").getModel()
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.getModel().predict(X, verbose=0))
    with pytest.raises(ValueError, match="'Local' cannot be saved: it is defined inside a function"):
        KerasModel(network(), customObjects={"Local": Local}).save(str(tmp_path / "local"))
    assert not (tmp_path / "local").exists()

    def saved(path, module):
        return {"Doubled": {"custom_object": "Doubled", "module": module, "path": path}}

    with keras.saving.custom_object_scope({"Doubled": Local}):
        assert KerasModel(customObjects=saved("Doubled", "nowhere")).getCustomObjects() == {"Doubled": Local}
    with pytest.raises(ValueError, match=r"'Doubled' in the module 'nowhere'.*custom_object_scope"):
        KerasModel(customObjects=saved("Doubled", "nowhere")).getCustomObjects()
    for path, module in (("Path", "pathlib"), ("system", "os"), ("Popen", "subprocess")):
        with pytest.raises(ValueError, match="subclass of one of Keras's classes"):
            KerasModel(customObjects=saved(path, module)).getCustomObjects()


# --- pipelines and searches


def classifier(**params):
    return KerasClassifier(model=network(), workerOptimizer="adam", batchSize=16, seed=0, **params)


@pytest.mark.parametrize("search", ["folds", "split"])
def test_a_search_over_rate_window_and_rule_trains_several_at_once_and_is_saved(search, df, tmp_path):
    if search == "folds":
        stage = classifier(featuresCol="scaled")
        scaler = MinMaxTransformer(-4, 4, 0, 1, "features", "scaled")
        estimator = Pipeline(stages=[scaler, stage])
        grid = ParamGridBuilder().addGrid(stage.algorithm, [DOWNPOUR(), LocalSGD(2)])
        grid = grid.baseOn({stage.learningRate: 0.1})
    else:
        estimator = stage = classifier()
        grid = ParamGridBuilder().addGrid(stage.learningRate, [0.1, 0.0])
        grid = grid.baseOn({stage.communicationWindow: 3})
    options = {
        "estimator": estimator,
        "estimatorParamMaps": grid.build(),
        "evaluator": MulticlassClassificationEvaluator(metricName="logLoss"),
        "parallelism": 2,
        "seed": 1,
    }
    if search == "folds":
        validator, model_class = CrossValidator(numFolds=2, **options), CrossValidatorModel
    else:
        validator, model_class = TrainValidationSplit(trainRatio=0.7, **options), TrainValidationSplitModel
    validator.save(str(tmp_path / "search"))
    validator = type(validator).load(str(tmp_path / "search"))
    found = validator.fit(df)
    metrics = found.avgMetrics if search == "folds" else found.validationMetrics
    assert len(set(metrics)) == len(metrics)
    best = found.bestModel.stages[1] if search == "folds" else found.bestModel
    assert (best.getLearningRate(), len(best.history) > 0) == (0.1, True)
    found.write().overwrite().save(str(tmp_path / "found"))
    loaded = model_class.load(str(tmp_path / "found"))
    assert predictions(loaded, df) == predictions(found, df)
    assert loaded.getEstimatorParamMaps() == found.getEstimatorParamMaps()
