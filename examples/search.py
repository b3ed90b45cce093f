"""Optuna searches an algorithm, its window and a learning rate, with two concurrent trainings.

pip install optuna
python examples/search.py [--trials 12] [--rows 6000]
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
from pathlib import Path

import keras
import optuna
from pyspark.sql import DataFrame, SparkSession

from distkeras.cluster.session import local_session
from distkeras.ml import KerasClassifier

TRAIN = Path(__file__).parent / "data" / "train.parquet"


def make_network() -> keras.Model:
    """The network that each trial trains."""
    keras.utils.set_random_seed(7)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Rescaling(1 / 255),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def search(data: DataFrame, trials: int, parallelism: int = 2) -> optuna.Study:
    """Run the search on rows with `image`, `label` and `held`, which is true for validation rows."""
    classifier = KerasClassifier(
        model=make_network(),
        workerOptimizer="sgd",
        featuresCol="image",
        validationIndicatorCol="held",
        seed=0,
        verbose=False,
    )

    def accuracy(trial: optuna.Trial) -> float:
        chosen = {
            classifier.algorithm: trial.suggest_categorical("rule", ["DOWNPOUR", "ADAG", "DynSGD"]),
            classifier.communicationWindow: trial.suggest_int("window", 1, 32, log=True),
            classifier.learningRate: trial.suggest_float("rate", 0.01, 1.0, log=True),
        }
        return float(classifier.fit(data, chosen).validation_metrics["accuracy"])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(accuracy, n_trials=trials, n_jobs=parallelism)
    return study


def read(spark: SparkSession, rows: int) -> DataFrame:
    """Read images; every fifth is a validation row."""
    images = spark.read.parquet(str(TRAIN)).limit(rows)
    return images.selectExpr("image", "label", "pmod(hash(image), 5) = 0 AS held").repartition(2).cache()


def main() -> None:
    """Search and print the best parameters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rows", type=int, default=6000)
    args = parser.parse_args()
    spark = local_session(4)  # Two concurrent trainings with two workers each.
    study = search(read(spark, args.rows), args.trials)
    print(f"best of {len(study.trials)}: accuracy {study.best_value:.3f} with {study.best_params}")
    spark.stop()


if __name__ == "__main__":
    main()
