"""Spark's web pages say what our jobs are for, and the user's own description is back afterwards."""

from __future__ import annotations

import json
import urllib.request

import keras
import pytest

import distkeras
from distkeras import ADAG
from distkeras.evaluators import AccuracyEvaluator
from distkeras.transformers import StandardTransformer

NAMES = ("spark.job.description", "callSite.short")


def asked(spark, what):
    """Return what Spark's REST API says of the jobs or the stages of the application."""
    context = spark.sparkContext
    address = f"{context.uiWebUrl}/api/v1/applications/{context.applicationId}/{what}"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def properties(spark):
    return [spark.sparkContext.getLocalProperty(name) for name in NAMES]


@pytest.fixture
def own_description(spark):
    spark.sparkContext.setJobDescription("the user's own")
    yield "the user's own"
    spark.sparkContext.setJobDescription(None)


def test_jobs_and_stages_say_rule_workers_and_run(spark, own_description, tmp_path):
    first = max((job["jobId"] for job in asked(spark, "jobs")), default=-1) + 1
    before = properties(spark)
    df = spark.range(0, 60, 1, 2).selectExpr("array(id / 60, id % 2) AS features", "int(id % 2) AS label")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    trainer = ADAG(model, "sgd", "sparse_categorical_crossentropy", num_workers=2, verbose=0)
    trained = trainer.train(df, validation_data=df, run=tmp_path / "run")
    trainer.evaluate(df)
    distkeras.predict(trained, df, num_workers=2)
    StandardTransformer(["label"]).transform(df)
    AccuracyEvaluator("label", "label").evaluate(df)
    assert properties(spark) == before
    df.count()
    jobs = {job["jobId"]: job for job in asked(spark, "jobs") if job["jobId"] >= first}
    texts = [jobs[number]["description"] for number in sorted(jobs)]
    assert texts.pop() == own_description  # Two jobs count the user's rows.
    assert texts.pop() == own_description
    training = f"distkeras ADAG, 2 workers, run {tmp_path / 'run'}: "
    steps = list(dict.fromkeys(text.removeprefix(training) for text in texts if text.startswith(training)))
    assert steps[0] == "counts and checks the rows"
    assert steps[-1] == "trains"
    assert "collects the rows of the validation" in steps
    others = list(dict.fromkeys(text for text in texts if not text.startswith(training)))
    assert others == [
        "distkeras ADAG, evaluation: counts the first rows",
        "distkeras ADAG, evaluation: counts and checks the rows",
        "distkeras ADAG, evaluation: evaluates the model",
        f"distkeras prediction with {trained.name!r}: computes the outputs",
        "distkeras: means and deviations for a StandardTransformer",
        "distkeras: evaluates by AccuracyEvaluator",
    ]
    numbers = {
        stage
        for number, job in jobs.items()
        for stage in job["stageIds"]
        if number in range(first, max(jobs) - 1)
    }
    names = {stage["name"] for stage in asked(spark, "stages") if stage["stageId"] in numbers}
    assert names == set(texts)
