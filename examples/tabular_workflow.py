"""A table of numbers and a class name: index, scale, train with every trainer in turn, print F1 scores.

python examples/tabular_workflow.py [--rows 20000] [--epochs 3] [--trainers ADAG DynSGD ...]

The rows are random: events of two kinds, "signal" and "background", with 30 measurements each.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
from typing import Any

import keras
from pyspark.ml import Pipeline
from pyspark.ml.feature import StandardScaler, StringIndexer, VectorAssembler
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

import distkeras
from distkeras.algorithms import REGISTRY
from distkeras.cluster.session import local_session
from distkeras.evaluators import F1Evaluator
from distkeras.predictors import ModelPredictor
from distkeras.transformers import LabelIndexTransformer, OneHotTransformer

MEASUREMENTS = [f"m{index}" for index in range(30)]

SPECIAL: dict[str, dict[str, Any]] = {
    "SingleTrainer": {},
    "AveragingTrainer": {"num_workers": 2},
    "EnsembleTrainer": {"num_ensembles": 2},
    "DiLoCo": {"num_workers": 2, "communication_window": 20},
    "DelayedNesterov": {"num_workers": 2, "communication_window": 5},
    "FedAdam": {"num_workers": 2, "communication_window": 5, "outer_learning_rate": 0.01},
}
"""Arguments of the trainers for which two workers and the defaults are not suitable."""

TRAINERS = [
    *("SingleTrainer", "AveragingTrainer", "EnsembleTrainer"),
    *(name for name in REGISTRY if name not in ("Averaging", "Sequential")),
]


def make_rows(spark: SparkSession, rows: int) -> DataFrame:
    """Draw events. For a signal, the first ten measurements have a higher mean and a larger spread."""
    signal = F.rand(1) < 0.4
    measured = [
        (F.randn(index + 2) * F.when(F.col("signal") & F.lit(index < 10), 1.5).otherwise(1.0) * (index + 1))
        + F.when(F.col("signal") & F.lit(index < 10), 0.6 * (index + 1)).otherwise(0.0)
        for index in range(len(MEASUREMENTS))
    ]
    events = spark.range(0, rows, 1, 2).withColumn("signal", signal)
    kind = F.when(F.col("signal"), "signal").otherwise("background").alias("kind")
    return events.select(
        "id", kind, *(value.alias(name) for value, name in zip(measured, MEASUREMENTS, strict=True))
    )


def prepare(dataset: DataFrame) -> DataFrame:
    """Add `features_normalized` with mean 0 and deviation 1, `label_index`, 0 or 1, and `label`, one-hot."""
    stages = [
        StringIndexer(inputCol="kind", outputCol="label_index"),
        VectorAssembler(inputCols=MEASUREMENTS, outputCol="features"),
        StandardScaler(inputCol="features", outputCol="features_normalized", withMean=True, withStd=True),
        OneHotTransformer(2, input_col="label_index", output_col="label"),
    ]
    return Pipeline(stages=stages).fit(dataset).transform(dataset)


def make_network() -> keras.Model:
    """A dense network with dropout."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    hidden = [
        layer for units in (64, 64) for layer in (layers.Dense(units, activation="relu"), layers.Dropout(0.2))
    ]
    return keras.Sequential(
        [keras.Input((len(MEASUREMENTS),)), *hidden, layers.Dense(2, activation="softmax")]
    )


def train(name: str, dataset: DataFrame, epochs: int) -> keras.Model | list[keras.Model]:
    """Train with the trainer of this name; an ensemble returns a list of models."""
    trainer = getattr(distkeras, name)(
        make_network(),
        keras.optimizers.Adagrad(0.05),
        "categorical_crossentropy",
        features_col="features_normalized",
        label_col="label",
        batch_size=32,
        num_epoch=epochs,
        seed=0,
        **SPECIAL.get(name, {"num_workers": 2}),
    )
    return trainer.train(dataset)


def f1(model: keras.Model | list[keras.Model], dataset: DataFrame) -> float:
    """Return the mean F1 score of the classes, weighted by their shares."""
    dataset = ModelPredictor(model, features_col="features_normalized").predict(dataset)
    dataset = LabelIndexTransformer(2, input_col="prediction").transform(dataset)
    evaluator = F1Evaluator(label_col="label_index", prediction_col="prediction_index")
    return float(evaluator.evaluate(dataset))


def run(spark: SparkSession, rows: int, epochs: int, trainers: list[str]) -> dict[str, float]:
    """Return the F1 score of each trainer on test rows."""
    dataset = prepare(make_rows(spark, rows)).select("id", "features_normalized", "label", "label_index")
    dataset = dataset.cache()
    training, test = dataset.where("id % 5 > 0").repartition(2).cache(), dataset.where("id % 5 = 0")
    scores = {}
    for name in trainers:
        scores[name] = f1(train(name, training, epochs), test)
        print(f"{name:18} F1 {scores[name]:.4f}")
    for cached in (training, dataset):
        cached.unpersist()
    return scores


def main() -> None:
    """Parse the arguments, train and print the scores."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trainers", nargs="+", choices=TRAINERS, default=TRAINERS, metavar="NAME")
    args = parser.parse_args()
    spark = local_session(2)
    run(spark, args.rows, args.epochs, args.trainers)
    spark.stop()


if __name__ == "__main__":
    main()
