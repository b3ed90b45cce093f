"""Trains where something is in the way, and says what came of it; run by test_reach.py.

Prints `training` when some windows are counted; of each trainer whether every window was counted once, or
the error; and whether the session, and another one of a Spark Connect server, live afterwards.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.util import is_remote_only
from slow_model import slow_class

import distkeras

ROWS = 1200


def make_model(pause):
    """Return a model whose steps take at least `pause` seconds, and the class that pickles it."""
    Slow = slow_class(pause)
    inputs = keras.Input((4,))
    return Slow(inputs, keras.layers.Dense(1)(inputs)), {"Slow": Slow}


def train(spark, name, arguments):
    """Train with the trainer of this name; print what came of it."""
    rows = pd.DataFrame(
        {"features": list(np.random.default_rng(0).normal(size=(ROWS, 4))), "label": np.zeros(ROWS)}
    )
    given = {"host": arguments.host, "patience": arguments.patience, "timeout": arguments.timeout}
    given["ports"] = None if arguments.port is None else (arguments.port,)
    model, custom_objects = make_model(arguments.pause)
    trainer = getattr(distkeras, name)(
        model,
        "sgd",
        "mse",
        batch_size=20,
        communication_window=2,
        num_epoch=arguments.epochs,
        num_workers=arguments.workers,
        custom_objects=custom_objects,
        server=distkeras.ServerOptions(**{key: value for key, value in given.items() if value is not None}),
        seed=0,
    )

    def tell():
        while len(trainer.get_history()) < 4:
            time.sleep(0.02)
        print("training", flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        trainer.train(spark.createDataFrame(rows).repartition(arguments.workers))
    except Exception as error:
        print(f"{name} ended with {type(error).__name__}: {error}\n-- end of the error", flush=True)
        return
    history = trainer.get_history()
    own = [[window.iteration for window in history if window.worker == i] for i in range(arguments.workers)]
    once = all(windows == list(range(len(windows))) for windows in own)
    once &= sum(window.samples for window in history) == ROWS * arguments.epochs
    print(f"{name} counted every window once {once}", flush=True)


def main():
    """Train with one trainer after the other in one session."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--patience", type=float)
    parser.add_argument("--timeout", type=float)
    arguments = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s")
    spark = SparkSession.builder.getOrCreate()
    other = SparkSession.builder.create() if is_remote_only() else spark.newSession()
    for name in arguments.trainers:
        train(spark, name, arguments)
    print("the session lives", spark.range(10).repartition(2).count() == 10)
    print("another session lives", other.range(10).repartition(2).count() == 10)
    spark.stop()


if __name__ == "__main__":
    main()
