"""Trains a small network on MNIST with one worker and with two workers, and compares them: `make demo`.

`make demo-all` does the same with every trainer.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from rich.console import Console
from rich.table import Table

import distkeras
from distkeras.cluster.session import local_session
from distkeras.plots.style import charts, line_style, save, styled

DATA = Path(__file__).parent / "data"

TWO = {"num_workers": 2}
COMPARED: dict[str, dict[str, Any]] = {
    "SingleTrainer": {"rate": 0.05, "num_epoch": 3},
    "DOWNPOUR": {"rate": 0.05, "num_epoch": 3, "communication_window": 16, **TWO},
}
# Every trainer with suitable parameters for this data: `rate` is the learning rate of SGD in the workers.
ALL: dict[str, dict[str, Any]] = {
    "SingleTrainer": {"rate": 0.05, "num_epoch": 3},
    "AveragingTrainer": {"rate": 0.1, "num_epoch": 5, **TWO},
    "EnsembleTrainer": {"rate": 0.1, "num_epoch": 5, "num_ensembles": 2},
    "DOWNPOUR": {"rate": 0.05, "num_epoch": 3, "communication_window": 16, **TWO},
    "AEASGD": {"rate": 0.1, "num_epoch": 5, **TWO},
    "EAMSGD": {"rate": 0.02, "num_epoch": 5, **TWO},
    "EASGD": {"rate": 0.1, "num_epoch": 5, **TWO},
    "ADAG": {"rate": 0.3, "num_epoch": 5, "communication_window": 5, **TWO},
    "AdaptiveADAG": {"rate": 0.3, "num_epoch": 5, "communication_window": 5, **TWO},
    "DynSGD": {"rate": 0.1, "num_epoch": 3, **TWO},
    "LocalSGD": {"rate": 0.1, "num_epoch": 5, **TWO},
    "SlowMo": {"rate": 0.1, "num_epoch": 5, **TWO},
    "DiLoCo": {"rate": 0.1, "num_epoch": 5, "communication_window": 100, **TWO},
    "FedAdam": {"rate": 0.1, "num_epoch": 5, "outer_learning_rate": 0.003, "communication_window": 50, **TWO},
    "DelayedNesterov": {"rate": 0.1, "num_epoch": 5, "outer_learning_rate": 0.3, **TWO},
    "GapAware": {"rate": 0.1, "num_epoch": 5, "learning_rate": 0.1, **TWO},
    "DCASGD": {"rate": 0.05, "num_epoch": 3, "learning_rate": 0.05, **TWO},
    "Ringmaster": {"rate": 0.05, "num_epoch": 3, **TWO},
}


@dataclass
class Outcome:
    """The results of one training for the table and the plot."""

    name: str
    workers: int
    accuracy: float
    seconds: float
    startup: float
    rows_per_second: float
    commits: int
    staleness: float
    history: distkeras.History
    model: keras.Model


def make_model() -> keras.Model:
    """The network: 784-500-500-10, ReLU and softmax, on raw bytes."""
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(500, activation="relu"),
            keras.layers.Dense(500, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def read_test() -> tuple[np.ndarray, np.ndarray]:
    """The 10,000 test images, shape (10000, 784), and their labels."""
    table = pq.read_table(DATA / "test.parquet")
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 784)
    return images.astype(np.float32), table["label"].to_numpy()


def train(name: str, data: DataFrame, rows: int, rate: float, **options: Any) -> Outcome:
    """Train with the trainer of this name and measure it on the test images."""
    trainer = getattr(distkeras, name)(
        make_model(),
        keras.optimizers.SGD(rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        features_col="image",
        label_col="label",
        batch_size=32,
        seed=0,
        **options,
    )
    began = time.time()
    trained = trainer.train(data)
    model = trained if isinstance(trained, keras.Model) else distkeras.merge(trained)
    images, labels = read_test()
    accuracy = float(np.mean(model.predict(images, batch_size=1000, verbose=0).argmax(1) == labels))
    history = trainer.get_history()
    seconds = trainer.get_training_time()
    return Outcome(
        name=name,
        workers=trainer.num_workers,
        accuracy=accuracy,
        seconds=seconds,
        startup=history[0].timestamp - began,
        rows_per_second=rows * trainer.num_epoch / seconds,
        commits=trainer.num_updates,
        staleness=float(np.mean([window.staleness for window in history])),
        history=history,
        model=model,
    )


def train_all(chosen: dict[str, dict[str, Any]]) -> list[Outcome]:
    """Train with each of these trainers, one after the other, on a local session with two cores."""
    spark: SparkSession = local_session(2, backend=keras.backend.backend())
    # Two equal parts, kept in memory, so that the comparison measures training and not reading.
    data = spark.read.parquet(str(DATA / "train.parquet")).repartition(2).cache()
    rows = data.count()
    outcomes = [train(name, data, rows, **options) for name, options in chosen.items()]
    spark.stop()
    return outcomes


def show(outcomes: list[Outcome]) -> None:
    """Print the table."""
    table = Table(title="MNIST, 60,000 images, MLP 784-500-500-10, SGD, batch 32")
    table.add_column("trainer")
    titles = (
        "workers",
        "test accuracy",
        "training time",
        "to first commit",
        "rows/s",
        "commits",
        "mean staleness",
    )
    for title in titles:
        table.add_column(title, justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            str(outcome.workers),
            f"{outcome.accuracy:.2%}",
            f"{outcome.seconds:.1f} s",
            f"{outcome.startup:.1f} s",
            f"{outcome.rows_per_second:,.0f}",
            f"{outcome.commits:,}",
            f"{outcome.staleness:.2f}",
        )
    Console(width=120).print(table)


def plot(outcomes: list[Outcome], path: Path) -> None:
    """Plot loss and accuracy against time, one line per trainer."""
    with styled():
        save(_drawn(outcomes), path)


def _drawn(outcomes: list[Outcome]) -> Any:
    figure, [row] = charts(1, 2, width=5.5, height=4)
    for axes, metric in zip(row, ("loss", "accuracy"), strict=True):
        for number, outcome in enumerate(outcomes):
            table = outcome.history.to_pandas().sort_values("time")
            smooth = table[metric].rolling(max(1, len(table) // 40), min_periods=1).mean()
            workers = f"{outcome.workers} worker{'s' if outcome.workers > 1 else ''}"
            axes.plot(table["time"], smooth, label=f"{outcome.name}, {workers}", **line_style(number))
        axes.set_yscale("log" if metric == "loss" else "linear")
        axes.set_xlabel("seconds since the first commit")
        axes.set_ylabel(f"training {metric}")
        axes.legend()
    return figure


def main() -> None:
    """Train, print and plot the results, and save the last model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="run every trainer, not only two")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for plot and model")
    arguments = parser.parse_args()
    outcomes = train_all(ALL if arguments.all else COMPARED)
    show(outcomes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    picture, saved = arguments.output / "training.png", arguments.output / "mnist.keras"
    plot(outcomes, picture)
    outcomes[-1].model.save(saved)
    print(f"Loss and accuracy against time: {picture.resolve()}")
    print(f"The model that {outcomes[-1].name} trained: {saved.resolve()}")


if __name__ == "__main__":
    main()
