"""MNIST from a CSV file to the test accuracy, step by step, with the DataFrame tools and the trainers.

python examples/mnist_workflow.py [--rows 20000] [--epochs 2] [--workers 2]

Every step adds a column: pixels -> vector -> 0 to 1 -> image; label -> one-hot; image -> prediction -> class.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from pyspark.ml.feature import VectorAssembler
from pyspark.sql import DataFrame, SparkSession

from distkeras.cluster.session import local_session
from distkeras.evaluators import AccuracyEvaluator
from distkeras.predictors import ModelPredictor
from distkeras.trainers import ADAG
from distkeras.transformers import (
    LabelIndexTransformer,
    MinMaxTransformer,
    OneHotTransformer,
    ReshapeTransformer,
)

DATA = Path(__file__).parent / "data"
PIXELS = [f"p{index}" for index in range(784)]
CLASSES = 10


def write_csv(source: Path, target: Path, rows: int) -> None:
    """Write `rows` images as a CSV file, a common format of the data: a label and 784 pixels per line."""
    table = pq.read_table(source).slice(0, rows)
    pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, len(PIXELS))
    columns = [table["label"], *np.ascontiguousarray(pixels.T)]
    csv.write_csv(pa.table(columns, names=["label", *PIXELS]), target)


def read_csv(spark: SparkSession, path: Path) -> DataFrame:
    """Read a CSV file that `write_csv` wrote."""
    schema = ", ".join(f"`{name}` INT" for name in ["label", *PIXELS])
    return spark.read.csv(str(path), header=True, schema=schema)


def prepare(dataset: DataFrame) -> DataFrame:
    """Add the network's inputs: `matrix`, an image of numbers from 0 to 1, and `label_encoded`, one-hot."""
    dataset = VectorAssembler(inputCols=PIXELS, outputCol="features").transform(dataset)
    dataset = OneHotTransformer(CLASSES, input_col="label", output_col="label_encoded").transform(dataset)
    dataset = MinMaxTransformer(
        o_min=0, o_max=255, n_min=0, n_max=1, input_col="features", output_col="features_normalized"
    ).transform(dataset)
    dataset = ReshapeTransformer("features_normalized", "matrix", (28, 28, 1)).transform(dataset)
    return dataset.select("matrix", "label", "label_encoded")


def make_network() -> keras.Model:
    """A small convolutional network."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


def evaluate(model: keras.Model, dataset: DataFrame) -> float:
    """Return the share of images that `model` classifies correctly."""
    dataset = ModelPredictor(model, features_col="matrix").predict(dataset)
    dataset = LabelIndexTransformer(CLASSES, input_col="prediction").transform(dataset)
    evaluator = AccuracyEvaluator(label_col="label", prediction_col="prediction_index")
    return float(evaluator.evaluate(dataset))


def run(spark: SparkSession, folder: Path, rows: int, epochs: int, workers: int) -> float:
    """Train on `rows` images, and return the accuracy on a fifth as many test images."""
    for name, count in (("train", rows), ("test", rows // 5)):
        write_csv(DATA / f"{name}.parquet", folder / f"{name}.csv", count)
    training = prepare(read_csv(spark, folder / "train.csv")).repartition(workers).cache()
    trainer = ADAG(
        make_network(),
        worker_optimizer="adam",
        loss="categorical_crossentropy",
        num_workers=workers,
        batch_size=32,
        communication_window=5,
        num_epoch=epochs,
        features_col="matrix",
        label_col="label_encoded",
    )
    model = trainer.train(training, shuffle=True)
    training.unpersist()
    print(f"{rows} images, {epochs} epochs, {workers} workers: {trainer.get_training_time():.1f} s")
    return evaluate(model, prepare(read_csv(spark, folder / "test.csv")))


def main() -> None:
    """Parse the arguments, train and print the accuracy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    spark = local_session(args.workers)
    with tempfile.TemporaryDirectory() as folder:
        accuracy = run(spark, Path(folder), args.rows, args.epochs, args.workers)
    print(f"accuracy {accuracy:.2%}")
    spark.stop()


if __name__ == "__main__":
    main()
