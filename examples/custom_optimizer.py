"""A custom distributed optimizer, first on 256 simulated workers, then on two Spark workers."""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from distkeras import DistributedTrainer
from distkeras.algorithms import Algorithm, Commit, State, Vector
from distkeras.cluster.session import local_session
from distkeras.simulation import Exponential, Quadratic, simulate


@dataclass(frozen=True)
class Consensus(Algorithm):
    """`c <- c + w d / (staleness + 1)`: w is 1 if `d` has the sign of recent deltas, else `doubt`."""

    communication_window: int | None = 5
    doubt: float = 0.25
    memory: float = 0.9

    def init(self, center: Vector) -> State:
        return {"trend": np.zeros_like(center)}

    def apply(self, center: Vector, message: Vector, commit: Commit, state: State) -> Vector:
        message /= commit.staleness + 1
        message[message * state["trend"] < 0] *= self.doubt
        state["trend"] *= self.memory
        state["trend"] += (1 - self.memory) * message
        center += message
        return center


def simulated(rule: Algorithm) -> None:
    """Simulate the algorithm on 256 workers of very different speed, in a second."""
    problem = Quadratic(curvature=1.0, noise=0.1, start=1.0)
    result = simulate(
        rule,
        problem,
        num_workers=256,
        num_commits=20_000,
        learning_rate=0.1,
        step_time=Exponential(1.0),
        seed=0,
    )
    print(f"256 simulated workers: loss {result.losses[0]:.3f} -> {result.losses[-1]:.5f}, ", end="")
    print(f"mean staleness {result.staleness.mean():.0f}")


def on_spark(rule: Algorithm) -> None:
    """Train on 6,000 images of MNIST with two workers."""
    spark = local_session(2)
    data = spark.read.parquet(str(Path(__file__).parent / "data" / "train.parquet")).limit(6000)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    trainer = DistributedTrainer(
        model,
        rule,
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        features_col="image",
        num_workers=2,
        num_epoch=5,
        seed=0,
    )
    trainer.train(data)
    history = trainer.get_averaged_history()
    print(f"2 workers on Spark: accuracy {history[0].metrics['accuracy']:.2f}", end="")
    print(f" -> {history[-1].metrics['accuracy']:.2f} in {trainer.num_updates} commits")


if __name__ == "__main__":
    rule = Consensus()
    simulated(rule)
    on_spark(rule)
