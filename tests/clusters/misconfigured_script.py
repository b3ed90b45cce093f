"""Trains with one thing wrong after the other, and then once as it should be; run by test_misconfigured.py.

Prints `name: error: message` for each name in its arguments, `name: trained` where there was no error, and
`diagnosis` with what `trainer.check` finds.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from pyspark.sql import SparkSession

import distkeras
from distkeras import ServerOptions

ROWS = 200
BRIEF = 15.0
"""Seconds to wait for executors that do not come."""

OF_THE_DRIVER = """
import numpy as np

def preprocess(columns):
    return np.stack(columns["features"]).astype("float32"), columns["label"].astype("float32")
"""


def make_trainer(name="ADAG", **options):
    """Return a trainer of a model of three weights."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return getattr(distkeras, name)(model, "sgd", "mse", batch_size=20, **options)


def train(spark, name, rows):
    """Train with what `name` says wrong."""
    if name == "no executors":
        return make_trainer(server=ServerOptions(give_up=BRIEF)).train(rows)
    if name == "host without a name":
        return make_trainer(server=ServerOptions("no-such-host.invalid", bind="127.0.0.1")).train(rows)
    if name == "another host":  # No machine has an address of this network.
        return make_trainer(server=ServerOptions("198.51.100.1", bind="127.0.0.1")).train(rows)
    if name == "bound elsewhere":
        return make_trainer(server=ServerOptions("127.0.0.1", bind="198.51.100.1")).train(rows)
    if name == "taken port":
        with socket.create_server(("127.0.0.1", 0)) as taken:
            ports = (taken.getsockname()[1],)
            return make_trainer(server=ServerOptions("127.0.0.1", ports=ports)).train(rows)
    if name == "too few slots":
        return make_trainer("LocalSGD", num_workers=5).train(rows)
    if name == "little memory":
        return make_trainer(server=ServerOptions(memory=2**20)).train(rows)
    if name == "run that cannot be written":
        return make_trainer().train(rows, run="/proc/run")
    if name == "streaming":
        return make_trainer().train(spark.readStream.format("rate").load())
    if name == "module of the driver":
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "module_of_the_driver.py").write_text(OF_THE_DRIVER)
            sys.path.append(folder)
            from module_of_the_driver import preprocess

            return make_trainer(preprocess=preprocess).train(rows)
    return make_trainer(num_epoch=2).train(rows)


def main():
    """Print what comes of each name."""
    logging.basicConfig(format="log: %(message)s")
    spark = SparkSession.builder.getOrCreate()
    rows = spark.range(0, ROWS, 1, 2).selectExpr("array(rand(1), rand(2)) AS features", "rand(3) AS label")
    for name in sys.argv[1:]:
        begin = time.monotonic()
        if name == "diagnosis":
            told = str(make_trainer().check(rows, limit=BRIEF))
        else:
            try:
                train(spark, name, rows)
                told = "trained"
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
        print(f"{name}: {told}", flush=True)
        print(f"after {time.monotonic() - begin:.0f} s", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
