"""Servers in two levels beside one level on Spark: MNIST, MLP 784-64-10, the same rows and workers.

    python benchmarks/regions.py [--regions 2] [--workers 4] [--epochs 3] [--seeds 3] [--window 8] [--merge 8]
        [--rate 0.1] [--batch 32] [--out FILE]

Both sides have the same rule in the workers. Accuracy is compared after the same number of rows, not in time.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import recording
from convergence_spark import DATA, accuracy, model, take_turns

from distkeras import DistributedTrainer, RegionServers
from distkeras.algorithms import DelayedNesterov, HALoS


def train(spark: Any, options: argparse.Namespace, regions: int, seed: int) -> dict[str, Any]:
    """Train in so many regions, or on one level for 0; return what came of it."""
    trainer = DistributedTrainer(
        model(seed),
        DelayedNesterov(options.window),
        keras.optimizers.SGD(options.rate),
        "sparse_categorical_crossentropy",
        num_workers=options.workers,
        batch_size=options.batch,
        features_col="image",
        label_col="label",
        num_epoch=options.epochs,
        seed=seed,
        verbose=0,
        regions=RegionServers(regions, HALoS(options.merge)) if regions else None,
    )
    trained = trainer.train(spark.read.parquet(str(DATA / "train.parquet")), shuffle=True)
    history = trainer.get_history()
    return {
        "regions": regions,
        "seed": seed,
        "accuracy": accuracy(trained),
        "rows": int(sum(window.samples for window in history)),
        "commits": len(history),
    }


def main() -> None:
    """Train both by turns, and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regions", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="of all regions together")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--window", type=int, default=8, help="minibatches between two commits of a worker")
    parser.add_argument("--merge", type=int, default=8, help="commits between two exchanges of a region")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/regions.json")
    options = parser.parse_args()
    take_turns(recording.begin(__file__), options, "regions", (0, options.regions), train)


if __name__ == "__main__":
    main()
