"""Trains a small network on MNIST with one worker and with two, and compares them: `make demo`.

`make demo-all` does the same with every trainer.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
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

DATA = Path(__file__).parent / "data"
EPOCHS = 3


@dataclass
class Outcome:
    """What the table and the plot show of one training."""

    name: str
    workers: int
    accuracy: float
    seconds: float
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


def train(name: str, data: DataFrame, rows: int, **options: Any) -> Outcome:
    """Train with the trainer of this name and measure it on the test images."""
    trainer = getattr(distkeras, name)(
        make_model(),
        keras.optimizers.SGD(0.05),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        features_col="image",
        label_col="label",
        batch_size=32,
        seed=0,
        **options,
    )
    model = trainer.train(data)
    _, accuracy = model.evaluate(*read_test(), batch_size=1000, verbose=0)
    history = trainer.get_history()
    seconds = trainer.get_training_time()
    return Outcome(
        name=name,
        workers=trainer.num_workers,
        accuracy=accuracy,
        seconds=seconds,
        rows_per_second=rows * trainer.num_epoch / seconds,
        commits=trainer.num_updates,
        staleness=float(np.mean([window.staleness for window in history])),
        history=history,
        model=model,
    )


def show(outcomes: list[Outcome]) -> None:
    """Print the table."""
    table = Table(title="MNIST, 60,000 images, MLP 784-500-500-10, SGD 0.05, batch 32")
    table.add_column("trainer")
    for title in ("workers", "test accuracy", "training time", "rows/s", "commits", "mean staleness"):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.name,
            str(outcome.workers),
            f"{outcome.accuracy:.2%}",
            f"{outcome.seconds:.1f} s",
            f"{outcome.rows_per_second:,.0f}",
            f"{outcome.commits:,}",
            f"{outcome.staleness:.2f}",
        )
    Console(width=100).print(table)


def plot(outcomes: list[Outcome], path: Path) -> None:
    """Write loss and accuracy against time, one line a trainer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for index, metric in enumerate(("loss", "accuracy"), start=1):
        axes = figure.add_subplot(1, 2, index)
        for outcome in outcomes:
            table = outcome.history.to_pandas().sort_values("time")
            smooth = table[metric].rolling(max(1, len(table) // 40), min_periods=1).mean()
            workers = f"{outcome.workers} worker{'s' if outcome.workers > 1 else ''}"
            axes.plot(table["time"], smooth, label=f"{outcome.name}, {workers}")
        axes.set_xlabel("seconds since the first commit")
        axes.set_ylabel(f"training {metric}")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Train, show, plot, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for plot and model")
    arguments = parser.parse_args()
    spark: SparkSession = local_session(2)
    data = spark.read.parquet(str(DATA / "train.parquet"))
    rows = data.count()
    outcomes = [
        train("SingleTrainer", data, rows, num_epoch=EPOCHS),
        train("DOWNPOUR", data, rows, num_epoch=EPOCHS, num_workers=2, communication_window=16),
    ]
    show(outcomes)
    arguments.output.mkdir(parents=True, exist_ok=True)
    picture, saved = arguments.output / "training.png", arguments.output / "mnist.keras"
    plot(outcomes, picture)
    outcomes[-1].model.save(saved)
    print(f"Plot of loss and accuracy against time: {picture.resolve()}")
    print(f"The model that DOWNPOUR trained:        {saved.resolve()}")
    spark.stop()


if __name__ == "__main__":
    main()
