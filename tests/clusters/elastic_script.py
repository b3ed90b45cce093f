"""Trains a model that counts how often each row is trained; run by test_elastic.py.

Arguments: what to do, a folder in which each worker notes where it runs, and with `speculation` the folder of
the cluster, with its executors' logs; with `resources` the number of GPUs of a worker.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

import distkeras

ROWS = 400


def make_trainer(pause, folder, rule=distkeras.DOWNPOUR, **options):
    """Each step adds one to the weights of its rows; worker 1 pauses after each minibatch, or all do."""
    network = keras.Sequential(
        [keras.Input((1,), dtype="int32"), keras.layers.Embedding(ROWS, 1, "zeros"), keras.layers.Flatten()]
    )
    network.compile(keras.optimizers.SGD(1.0), keras.losses.MeanAbsoluteError(reduction="sum"))

    def preprocess(columns):
        from pyspark import TaskContext

        context = TaskContext.get()
        if context is not None:  # Not on the driver.
            gpus = context.resources().get("gpu")
            note = f"{context.cpus()} cores, gpus {[] if gpus is None else gpus.addresses}, {os.getcwd()}"
            note += f", threads {os.environ['NPROC']}"
            (folder / f"{context.partitionId()}-{context.attemptNumber()}-{os.getpid()}").write_text(note)
            time.sleep(pause(context.partitionId()))
        return columns["id"][:, None], columns["label"][:, None]

    host = "127.0.0.1" if is_remote() else None  # Spark Connect does not know it.
    return rule(
        network,
        features_col="id",
        batch_size=10,
        communication_window=2,
        preprocess=preprocess,
        seed=0,
        server=distkeras.ServerOptions(heartbeat=10.0, host=host),
        **options,
    )


def rows_of(spark):
    return spark.range(0, ROWS, 1, 4).selectExpr("id", "1000.0 AS label")


def train(spark, trainer, expected):
    """Train, tell of the progress, and print whether the weight of every row has become `expected`."""
    running = threading.Event()

    def tell():
        while not running.wait(0.1):
            print("windows", len(trainer.get_history()), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    try:
        model = trainer.train(rows_of(spark), shuffle=True)
    finally:
        running.set()
    counted = model.get_weights()[0].ravel().tolist()
    print("every row once an epoch", counted == [expected] * ROWS, flush=True)
    return trainer


def speculation(spark, folder, logs):
    """Worker 1 is slow, so that Spark starts a copy; the second time the slow process is killed then."""
    for kills in (False, True):
        own = folder / str(kills)
        own.mkdir()
        trainer = make_trainer(lambda worker: 0.3 * (worker == 1), own, num_workers=2, num_epoch=1)
        killer = threading.Thread(target=kill_the_original, args=(own, logs, 1 + kills, kills))
        killer.start()
        train(spark, trainer, 1)
        killer.join()


def kill_the_original(folder, logs, copies, kills):
    """Wait until so many copies have waited, and kill the process that trains as worker 1."""
    waits = 0
    while waits < copies:
        texts = [path.read_text(errors="replace") for path in logs.glob("worker-*/app-*/*/stderr")]
        waits = sum(text.count("A process waits to train as worker 1") for text in texts)
        time.sleep(0.1)
    print("a copy waits", flush=True)
    if kills:
        (original,) = folder.glob("1-0-*")
        os.kill(int(original.name.split("-")[2]), 9)
        print("the original is killed", flush=True)


def print_notes(folder):
    """Print where the workers of a training ran, and delete their notes."""
    for note in folder.glob("?-*"):
        print("note", note.read_text(), flush=True)
        note.unlink()


def resources(spark, folder, gpus, rule=distkeras.DOWNPOUR):
    cores, gpus = 2, int(gpus)
    own = (
        distkeras.Resources(cores=cores, gpus=gpus, executor_cores=2) if gpus else distkeras.Resources(cores)
    )
    share = 1 if rule is distkeras.DOWNPOUR else 0.5  # The mean of two workers, of which one has the row.
    train(spark, make_trainer(lambda worker: 0.0, folder, rule, num_workers=2, resources=own), share)
    print_notes(folder)


def different(spark, folder, gpus):
    """First a training with resources of its own, then one without."""
    resources(spark, folder, gpus)
    train(spark, make_trainer(lambda worker: 0.0, folder, num_workers=2), 1)
    print_notes(folder)


def together(spark, folder, gpus):
    """As `resources`, by a synchronous rule."""
    resources(spark, folder, gpus, distkeras.LocalSGD)


def few(spark, folder):
    """Elastic training where no executor comes or goes."""
    train(spark, make_trainer(lambda worker: 0.0, folder, min_workers=1, max_workers=2, num_epoch=2), 2)


def elastic(spark, folder):
    options = {"min_workers": 1, "max_workers": 2, "num_epoch": 5}
    trainer = train(spark, make_trainer(lambda worker: 0.2, folder, **options), 5)
    for share in range(8):
        iterations = [window.iteration for window in trainer.get_executor_history(share)]
        assert iterations == list(range(len(iterations)))
    print("executors", len({note.read_text().split(", ")[2] for note in folder.glob("?-*")}), flush=True)


def main():
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("distkeras").setLevel(logging.INFO)
    spark = SparkSession.builder.getOrCreate()
    folder, *further = sys.argv[2:]
    paths = [Path(each) if os.path.isdir(each) else each for each in further]
    what = {each.__name__: each for each in (speculation, resources, different, together, few, elastic)}
    what[sys.argv[1]](spark, Path(folder), *paths)
    spark.stop()


if __name__ == "__main__":
    main()
