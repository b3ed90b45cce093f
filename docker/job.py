"""A first training on a cluster: which of two numbers is the larger one. `spark-submit job.py RUN`."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from pyspark.sql import SparkSession

from distkeras import ADAG


def main(run: str) -> None:
    """Train two workers for three epochs, and keep events and checkpoints at `run`."""
    spark = SparkSession.builder.appName("distkeras: a first training").getOrCreate()
    points = spark.range(20_000).selectExpr("array(rand(1), rand(2)) AS features")
    rows = points.selectExpr("features", "int(features[0] > features[1]) AS label")
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(2, "softmax")]
    )
    trainer = ADAG(model, "adam", "sparse_categorical_crossentropy", num_workers=2, num_epoch=3)
    trainer.train(rows, run=run)
    print(trainer.result)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
