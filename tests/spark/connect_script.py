"""Trains, predicts, saves and loads on Spark Connect; run by test_connect.py: a process has one Spark."""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request

os.environ["PYSPARK_PYTHON"] = sys.executable

import keras
import numpy as np
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import SparkSession

from distkeras import ServerOptions, load_run
from distkeras.algorithms import LocalSGD
from distkeras.ml import KerasClassifier
from distkeras.transformers import MinMaxTransformer
from distkeras.worker import payload

HERE = ServerOptions(host="127.0.0.1")


LARGEST_MESSAGE = 2**18


def make_model():
    """Return a model that is larger than a message."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(LARGEST_MESSAGE // 8, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def job_tags(port):
    """Yield the tags of all jobs, as Spark's REST API says them."""

    def asked(what):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=30) as answer:
            return json.load(answer)

    (application,) = asked("applications")
    for job in asked(f"applications/{application['id']}/jobs"):
        yield from job["jobTags"]


def main():
    payload.CHUNK_BYTES = 2**17
    folder, port = sys.argv[1], free_port()
    spark = (
        SparkSession.builder.remote("local[2]")
        .config("spark.ui.port", str(port))
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.connect.grpc.maxInboundMessageSize", str(LARGEST_MESSAGE))
        .config("spark.sql.artifact.copyFromLocalToFs.allowDestLocal", "true")
        .getOrCreate()
    )
    df = spark.range(0, 400, 1, 2).selectExpr("id", "array(rand(1), rand(2)) AS x", "id % 4 = 0 AS held")
    df = df.selectExpr("*", "int(x[0] > x[1]) AS label")
    rows = f"{folder}/rows"
    df.write.parquet(rows)
    df = spark.read.parquet(rows)

    scaler = MinMaxTransformer(0, 1, -1, 1, "x", "features")
    classifier = KerasClassifier(
        model=make_model(),
        algorithm=LocalSGD(4),  # Synchronous: a barrier stage.
        workerOptimizer="adam",
        learningRate=0.003,
        numEpoch=3,
        server=HERE,
        validationIndicatorCol="held",
        seed=0,
    )
    model = Pipeline(stages=[scaler, classifier]).fit(df)
    print(
        "tagged",
        any("distkeras LocalSGD - 2 workers: trains" in tag for tag in job_tags(port)),
        spark.getTags(),
    )
    predicted = model.transform(df)
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(predicted)
    print("accuracy", accuracy, model.stages[1].validation_metrics["accuracy"])

    fitted, rows = model.stages[1], scaler.transform(df.where("held"))
    first = predicted.where("held").first()
    print(
        "row",
        fitted.predict(np.array(first.features)) == first.prediction,
        fitted.summary.totalIterations > 0,
    )
    gap = fitted.evaluate(rows).accuracy - fitted.validation_metrics["accuracy"]
    print("evaluated", abs(gap) < 1e-6)

    for _ in range(2):
        model.write().overwrite().save(f"{folder}/model")
    loaded = PipelineModel.load(f"{folder}/model").transform(df)
    print("same", loaded.orderBy("id").collect() == predicted.orderBy("id").collect())
    try:
        load_run("hdfs://nowhere:9/run")
    except ValueError as error:
        print("refused", "Spark Connect gives this process no access" in str(error))
    spark.stop()


if __name__ == "__main__":
    main()
