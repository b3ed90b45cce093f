"""Trains a small network on MNIST on whatever Spark it is given; nothing here names a cluster.

    spark-submit --master 'local[2]' examples/mnist_anywhere.py
    spark-submit --master spark://HOST:7077 examples/mnist_anywhere.py
    SPARK_REMOTE=sc://HOST:15002 python examples/mnist_anywhere.py

The images are read by Spark from `--data`: executors, and a Spark Connect server, must find them there.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import json
import time

import keras
import numpy as np
from demo import DATA, make_model, read_test
from pyspark.sql import SparkSession

import distkeras

TRAINERS = {"DOWNPOUR": {"communication_window": 16}, "LocalSGD": {}}


def main() -> None:
    """Train asynchronously and synchronously, and print accuracy and seconds as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(DATA / "train.parquet"))
    parser.add_argument(
        "--shared", help="a folder that all executors reach, if they cannot reach this process"
    )
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    began = time.time()
    spark = SparkSession.builder.getOrCreate()
    # One partition at first, however many cores there are: the same rows go to the same worker everywhere.
    spark.conf.set("spark.sql.files.minPartitionNum", "1")
    data = spark.read.parquet(arguments.data).repartition(2)
    images, labels = read_test()
    outcomes = {}
    shared = arguments.shared
    placement = {"server_placement": distkeras.Placement("auto", shared=shared)} if shared else {}
    for name, options in TRAINERS.items():
        trainer = getattr(distkeras, name)(
            make_model(),
            keras.optimizers.SGD(0.05),
            "sparse_categorical_crossentropy",
            features_col="image",
            label_col="label",
            batch_size=32,
            num_workers=2,
            num_epoch=arguments.epochs,
            seed=0,
            **placement,
            **options,
        )
        model = trainer.train(data)
        right = model.predict(images, batch_size=1000, verbose=0).argmax(1) == labels
        outcomes[name] = {
            "accuracy": round(float(np.mean(right)), 4),
            "seconds": round(trainer.get_training_time(), 1),
        }
    outcomes["all"] = {"seconds": round(time.time() - began, 1)}
    spark.stop()
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
