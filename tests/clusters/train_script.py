"""Trains a small model for a second or two on whatever Spark it is given; run by the tests of clusters.

Prints the accuracy on the training rows, the number of updates, and whether every window was counted once.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.util import is_remote_only

import distkeras

ROWS = 2000


def make_frame(spark, partitions):
    """Rows that a linear model separates."""
    features = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
    labels = (features.sum(axis=1) > 0).astype("float32")
    frame = spark.createDataFrame(pd.DataFrame({"features": list(features), "label": labels}))
    return frame.repartition(partitions), features, labels


def make_model():
    """Return the model, the same in every process."""
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])


def make_trainer(arguments):
    """Return the trainer that the arguments say."""
    options = {} if arguments.host is None else {"host": arguments.host}
    if arguments.ports:
        options["ports"] = tuple(arguments.ports)
    if arguments.patience:
        options["patience"] = arguments.patience
    return getattr(distkeras, arguments.trainer)(
        make_model(),
        keras.optimizers.SGD(0.1),
        "binary_crossentropy",
        batch_size=20,
        communication_window=5,
        num_epoch=arguments.epochs,
        num_workers=arguments.workers,
        server=distkeras.ServerOptions(**options),
        seed=0,
    )


def main():
    """Train, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trainer", default="DOWNPOUR")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--host", help="of the parameter server, where Spark does not know it")
    parser.add_argument("--ports", type=int, nargs="+")
    parser.add_argument("--patience", type=float)
    arguments = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    frame, features, labels = make_frame(spark, arguments.workers)
    trainer = make_trainer(arguments)
    model = trainer.train(frame)
    right = (model.predict(features, verbose=0)[:, 0] > 0.5) == (labels > 0.5)
    windows = [[w.iteration for w in trainer.get_executor_history(i)] for i in range(arguments.workers)]
    once = all(own == list(range(len(own))) for own in windows)
    samples = sum(window.samples for window in trainer.get_history())
    print("pure client", is_remote_only())
    print(f"accuracy {right.mean():.3f}")
    print("every window once", once and samples == ROWS * arguments.epochs)
    spark.stop()


if __name__ == "__main__":
    main()
