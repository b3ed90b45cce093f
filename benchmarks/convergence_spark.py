"""The best asynchronous rule on Spark beside one worker: MNIST, MLP 784-64-10, the same rows in all.

    python benchmarks/convergence_spark.py [--workers 16] [--rows 600000] [--seeds 3] [--rate 0.3] [--batch 8]
        [--rule DelayedNesterov] [--window 1] [--single-rate 0.1] [--single-batch 32] [--out FILE]

The workers are processes of Spark that share the cores of this machine. Their staleness is real, their speed
is not that of as many machines: accuracy is compared after the same number of rows, and not in time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import recording

from distkeras import DistributedTrainer, SingleTrainer
from distkeras.algorithms import REGISTRY
from distkeras.cluster.session import local_session

DATA = Path(__file__).resolve().parents[1] / "examples" / "data"


def model(seed: int) -> keras.Model:
    """Return the network, which scales the images itself."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.Input((784,)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10, activation="softmax"),
    ]
    return keras.Sequential(layers)


def accuracy(trained: keras.Model) -> float:
    """Return the share of the test images that a model names rightly."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(DATA / "test.parquet")
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 784)
    found = trained.predict(images.astype(np.float32), batch_size=1000, verbose=0).argmax(axis=1)
    return float(np.mean(found == table["label"].to_numpy()))


def train(spark: Any, options: argparse.Namespace, workers: int, seed: int) -> dict[str, Any]:
    """Train with so many workers; return what came of it."""
    frame = spark.read.parquet(str(DATA / "train.parquet"))
    epochs = round(options.rows / frame.count())
    shared: dict[str, Any] = {
        "features_col": "image",
        "label_col": "label",
        "num_epoch": epochs,
        "seed": seed,
        "verbose": 0,
    }
    loss = "sparse_categorical_crossentropy"
    began = time.perf_counter()
    if workers == 1:
        optimizer = keras.optimizers.SGD(options.single_rate)
        trainer: Any = SingleTrainer(model(seed), optimizer, loss, batch_size=options.single_batch, **shared)
    else:
        trainer = DistributedTrainer(
            model(seed),
            REGISTRY[options.rule](communication_window=options.window),
            keras.optimizers.SGD(options.rate),
            loss,
            num_workers=workers,
            batch_size=options.batch,
            **shared,
        )
    trained = trainer.train(frame)
    history = trainer.get_history()
    staleness = [window.staleness for window in history]
    return {
        "workers": workers,
        "seed": seed,
        "accuracy": accuracy(trained),
        "rows": int(sum(window.samples for window in history)),
        "commits": len(staleness),
        "staleness_mean": round(float(np.mean(staleness)), 2),
        "staleness_most": int(max(staleness)),
        "wall_seconds": round(time.perf_counter() - began, 1),
    }


def take_turns(
    run: recording.Run,
    options: argparse.Namespace,
    side: str,
    sides: Sequence[int],
    train: Callable[[Any, argparse.Namespace, int, int], dict[str, Any]],
) -> None:
    """Train all sides by turns with each seed, and write what came of it after each training.

    Args:
        run: writes the record.
        options: have `workers`, `seeds` and `out`.
        side: field of a training that says which side it is of.
        sides: values of that field.
        train: trains a side, given the session, the options, the side and the seed.
    """
    spark = local_session(options.workers, backend=keras.backend.backend())
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    trained: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for value in sides:
            trained.append(train(spark, options, value, seed))
            print(json.dumps(trained[-1]), flush=True)
            means = {
                each: statistics.mean(one["accuracy"] for one in trained if one[side] == each)
                for each in {one[side] for one in trained}
            }
            run.write({"settings": settings, "mean_accuracy": means, "trainings": trained}, options.out)
    print(json.dumps(means))
    spark.stop()


def main() -> None:
    """Train both by turns, and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--rows", type=int, default=600_000, help="of all workers together")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rule", choices=list(REGISTRY), default="DelayedNesterov")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--single-rate", type=float, default=0.1)
    parser.add_argument("--single-batch", type=int, default=32)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/convergence_spark.json")
    options = parser.parse_args()
    take_turns(recording.begin(__file__), options, "workers", (1, options.workers), train)


if __name__ == "__main__":
    main()
