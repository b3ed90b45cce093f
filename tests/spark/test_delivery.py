"""How a large model gets to the workers: once, as files, and not inside the code of a task."""

from __future__ import annotations

from pathlib import Path

import cloudpickle
import keras
import numpy as np
import pandas as pd
import pytest
from pyspark import SparkFiles
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

import distkeras
from distkeras import predictors
from distkeras.cluster import job
from distkeras.cluster.arrays import Roles
from distkeras.cluster.evaluation import evaluate
from distkeras.predictors import ModelPredictor, predict_udf
from distkeras.worker import payload

PIECE = 2**18
CODE = 2**16
"""What the code of a task takes at most."""

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)


@pytest.fixture
def rows(spark, monkeypatch):
    """Return rows for a model that takes several pieces."""
    monkeypatch.setattr(payload, "CHUNK_BYTES", PIECE)
    return spark.createDataFrame(pd.DataFrame({"features": list(X), "label": X.sum(axis=1)})).coalesce(1)


def make_model():
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(60_000, "relu"), keras.layers.Dense(1, use_bias=False)]
    )
    model.compile("sgd", "mse")
    return model


def files():
    """The files of this project that Spark has here, by name."""
    return {
        path.name: path.stat().st_size for path in Path(SparkFiles.getRootDirectory()).glob("**/distkeras-*")
    }


def test_a_model_in_many_pieces_trains_and_nothing_is_left_of_it(rows, monkeypatch):
    during, before = [], files()

    worker_stage = job.worker_stage

    def seen(frame, envelope, **options):
        during.append((len(cloudpickle.dumps(envelope)), envelope.model.files, files()))
        return worker_stage(frame, envelope, **options)

    monkeypatch.setattr(job, "worker_stage", seen)
    trainer = distkeras.DOWNPOUR(make_model(), num_workers=1, batch_size=16, seed=0)
    trained = trainer.train(rows, shuffle=False)
    expected = make_model()
    expected.fit(X, X.sum(axis=1), batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_allclose(trained.predict(X, verbose=0), expected.predict(X, verbose=0), atol=1e-4)
    ((code, names, there),) = during
    assert code < CODE
    assert len(names) > 4
    assert {there[name] for name in names[:-1]} == {PIECE}
    assert files() == before


def test_a_model_in_many_pieces_predicts_by_the_same_files_however_often(rows, monkeypatch):
    codes, function = [], predictors._stream_function

    def measured(prediction):
        codes.append(len(cloudpickle.dumps(function(prediction))))
        return function(prediction)

    monkeypatch.setattr(predictors, "_stream_function", measured)
    model, before = make_model(), files()
    expected = model.predict(X, verbose=0).ravel()
    for _ in range(2):
        frame = ModelPredictor(model, output="scalar").predict(rows)
        np.testing.assert_allclose(
            [row.prediction for row in frame.collect()], expected, rtol=1e-5, atol=1e-6
        )
        new = files().keys() - before.keys()
        assert len(new) > 4
    assert max(codes) < CODE
    score = predict_udf(model, output="scalar")
    found = rows.select(score(F.col("features")).alias("score")).collect()
    np.testing.assert_allclose([row.score for row in found], expected, rtol=1e-5, atol=1e-6)
    assert files().keys() - before.keys() == new
    losses = evaluate(model, rows, Roles("features"))
    np.testing.assert_allclose(losses["loss"], np.mean((expected - X.sum(axis=1)) ** 2), rtol=1e-4)
    assert files().keys() - before.keys() == new
