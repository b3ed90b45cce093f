"""`distkeras train`, `check`, `evaluate` and `predict` on files, in this process's session."""

from __future__ import annotations

import json
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from distkeras.command import main

JOB = """
[model]
file = "model.keras"
[data]
path = "rows.csv"
features = ["x", "y"]
[rule]
name = "downpour"
[train]
loss = "binary_crossentropy"
optimizer = "sgd"
learning_rate = 0.1
seed = 0
[output]
run = "runs/{time}"
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == code, f"{result.exit_code}: {result.output}\n{result.exception!r}"
    return result.stdout


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a job file, rows as CSV and a model."""
    points = np.random.default_rng(0).normal(size=(200, 2))
    table = pd.DataFrame(points, columns=["x", "y"]).assign(label=(points.sum(axis=1) > 0).astype(int))
    table.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "job.toml").write_text(JOB)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid")]
    keras.Sequential(layers).save(tmp_path / "model.keras")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_job_file_is_checked_trained_evaluated_and_predicted_with(
    spark, project, tmp_path_factory, monkeypatch
):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))  # Paths in the file are relative to the file.
    job = project / "job.toml"
    flags = ("--workers", 1, "--epochs", 2, "--output", project / "trained.keras", "--rule-argument")
    flags = (*flags, "communication_window=5", "--metric", "accuracy", "--stop", "minutes=5")
    told = json.loads(run("train", job, *flags, "--json"))
    assert (told["reason"], told["epochs"], told["model"]) == ("finished", 2, str(project / "trained.keras"))
    assert len(told["history"]["accuracy"]) == 2
    assert told["run"].startswith(str(project / "runs" / "2"))
    settings = json.loads(run("runs", "show", told["run"], "--json"))["settings"]
    assert (settings["num_workers"], settings["algorithm"]["communication_window"]) == (1, 5)

    trained = keras.saving.load_model(project / "trained.keras")
    weights = keras.saving.load_model(project / "model.keras").get_weights()
    assert not np.allclose(trained.get_weights()[0], weights[0])
    rows = (project / "rows.csv", "--feature", "x", "--feature", "y", "--workers", 1)
    measured = json.loads(run("evaluate", project / "trained.keras", *rows, "--json"))
    table = pd.read_csv(project / "rows.csv")
    expected = trained.evaluate(
        table[["x", "y"]].to_numpy("float32"), table["label"], verbose=0, return_dict=True
    )
    assert measured == pytest.approx(expected, rel=1e-4)
    assert "accuracy: " in run("evaluate", told["run"], *rows)

    run("predict", project / "trained.keras", *rows, "--output", project / "predicted")
    predicted = spark.read.parquet(str(project / "predicted")).toPandas()
    assert predicted.columns.tolist() == ["x", "y", "label", "prediction"]
    outputs = trained.predict(predicted[["x", "y"]].to_numpy("float32"), verbose=0)
    np.testing.assert_allclose(np.stack(predicted["prediction"]), outputs, rtol=1e-4, atol=1e-6)
    assert spark.range(3).count() == 3  # A session that was there before stays.

    found = json.loads(run("check", job, "--workers", 1, "--json"))
    assert found["ok"]


def test_what_a_job_file_names_and_is_not_there_is_said_before_training(spark, project):
    cases = {
        "Expected files to read": ("--data-path", "none.csv"),
        "Expected `format`": ("--data-path", "."),
        "No algorithm has the name": ("--rule", "none"),
        "Expected arguments of DOWNPOUR": ("--rule-argument", "window=3"),
        "Expected a module": ("--data-function", "none:rows"),
    }
    (project / "other.csv").write_text("x\n1\n")
    (project / "other.json").write_text("{}")
    for message, flags in cases.items():
        if flags[0] == "--data-function":
            (project / "job.toml").write_text(JOB.replace('path = "rows.csv"', ""))
        result = CliRunner().invoke(main, ["train", "job.toml", *flags])
        assert result.exit_code in (1, 2), (flags, result.output)
        assert message in result.stderr, flags
