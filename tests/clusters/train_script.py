"""Trains a small model for a second or two on whatever Spark it is given; run by the tests of clusters.

Prints `training` when some windows are counted, and of each trainer the accuracy on the training rows and
whether every window was counted once; or the error.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
import traceback

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.util import is_remote_only
from slow_model import slow_class

import distkeras

ROWS = 2000


def make_rows():
    """Return features and labels that a linear model learns."""
    features = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
    return features, (features.sum(axis=1) > 0).astype("float32")


def make_model(pause):
    """Return the model, the same in every process, whose steps take at least `pause` seconds."""
    Slow = slow_class(pause)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1, activation="sigmoid")(inputs)
    return Slow(inputs, outputs) if pause else keras.Model(inputs, outputs), {"Slow": Slow}


def train(spark, name, arguments):
    """Train with the trainer of this name, and print what came of it."""
    features, labels = make_rows()
    frame = spark.createDataFrame(pd.DataFrame({"features": list(features), "label": labels}))
    given = {"host": arguments.host, "ports": arguments.ports, "patience": arguments.patience}
    given |= {"heartbeat": arguments.heartbeat, "give_up": arguments.give_up}
    server = distkeras.ServerOptions(**{key: value for key, value in given.items() if value is not None})
    model, custom_objects = make_model(arguments.pause)
    trainer = getattr(distkeras, name)(
        model,
        keras.optimizers.SGD(0.1),
        "binary_crossentropy",
        batch_size=20,
        communication_window=5,
        num_epoch=arguments.epochs,
        num_workers=arguments.workers,
        num_parameter_servers=arguments.servers,
        custom_objects=custom_objects,
        server=server,
        server_placement=distkeras.Placement(arguments.placement, shared=arguments.shared),
        seed=0,
    )
    threading.Thread(target=tell, args=(trainer,), daemon=True).start()
    trained = trainer.train(frame.repartition(arguments.workers))
    right = (trained.predict(features, verbose=0)[:, 0] > 0.5) == (labels > 0.5)
    windows = [[w.iteration for w in trainer.get_executor_history(i)] for i in range(arguments.workers)]
    once = all(own == list(range(len(own))) for own in windows)
    samples = sum(window.samples for window in trainer.get_history())
    print(f"{name}: accuracy {right.mean():.3f}")
    print(f"{name}: ended by {trainer.result.reason}")
    print(f"{name}: every window once", once and samples == ROWS * arguments.epochs)
    again = sum("is started again" in each.text for each in trainer.get_transitions())
    for told in trainer.get_transitions():
        if "parameter servers run on" in told.text:
            print(f"{name}: {told.text}")
    print(f"{name}: servers on {trainer.result.server_placement}, started again {again}")


def tell(trainer):
    """Print a line for the test once some windows of every worker are counted."""
    while len({window.worker for window in trainer.get_history()}) < trainer.num_workers:
        time.sleep(0.02)
    print("training", flush=True)


def main():
    """Train with each trainer in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trainers", nargs="+")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of each step")
    parser.add_argument("--host", help="of the parameter server, where Spark does not know it")
    parser.add_argument("--ports", type=int, nargs="+")
    parser.add_argument("--patience", type=float)
    parser.add_argument("--heartbeat", type=float)
    parser.add_argument("--give-up", type=float)
    parser.add_argument("--placement", default="driver", help="of the parameter server")
    parser.add_argument("--shared", help="folder for servers on executors")
    arguments = parser.parse_args()
    spark = SparkSession.builder.getOrCreate()
    print("pure client", is_remote_only())
    for name in arguments.trainers:
        try:
            train(spark, name, arguments)
        except Exception:
            print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
    print("session lives", spark.range(3).count() == 3)
    spark.stop()


if __name__ == "__main__":
    main()
