"""Trainings on a GPU that Spark hands out, and the same ones without it. JSON out.

python benchmarks/gpu_spark.py [--backends jax torch] [--epochs 3] [--address 0] [--out FILE]

For each backend there are two applications, each on a cluster of one executor with two slots. In one of them
the executor has a GPU by Spark's resource API, and each task takes half of it; in the other no GPU is
visible. Each application trains an MLP on MNIST: with one worker (`SingleTrainer`), and with two workers
(`DOWNPOUR`); each twice, of which the second time is warm. It records the device that each worker named when
it joined, what `check` found about GPUs, seconds, and the accuracy on the test images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import recording
from contenders import DATA, keras_model, mnist
from gpu import BACKENDS, accelerator, lines_of

PLACES = ("gpu", "cpu")
WITHOUT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
BATCH = 256
RATE = 0.2
RESULTS = Path(__file__).parent / "results" / "gpu_spark.json"


def session(place: str, options: argparse.Namespace, folder: Path) -> Any:
    """Return a session of an application on a cluster of its own, with or without a GPU."""
    from pyspark.sql import SparkSession

    settings = {"spark.executor.memory": "3g", "spark.ui.enabled": "false"}
    if place == "gpu":
        found = json.dumps({"name": "gpu", "addresses": [options.address]})
        script = folder / "gpus.sh"
        script.write_text(f"#!/bin/sh\necho '{found}'\n")
        script.chmod(0o755)
        settings |= {
            "spark.worker.resource.gpu.amount": "1",
            "spark.worker.resource.gpu.discoveryScript": str(script),
            "spark.executor.resource.gpu.amount": "1",
            "spark.task.resource.gpu.amount": "0.5",
            "spark.executorEnv.JAX_PLATFORMS": "",  # Executors inherit the driver's environment.
        }
    else:
        settings |= {f"spark.executorEnv.{name}": value for name, value in WITHOUT.items()}
    builder = SparkSession.builder.master("local-cluster[1,2,4096]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def trainings(place: str, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Train, and yield the figures of each training."""
    spark = session(place, options, folder)
    import keras

    from distkeras import DOWNPOUR, SingleTrainer
    from distkeras.events import WorkerJoined
    from distkeras.monitor import Monitor

    class Devices(Monitor):
        """Notes on what each worker computes."""

        def __init__(self) -> None:
            self.found: dict[int, str] = {}

        def take(self, events: Any) -> None:
            for each in events:
                if isinstance(each, WorkerJoined) and each.about is not None:
                    self.found[each.worker] = each.about.device

    rows = spark.read.parquet(str(DATA / "train.parquet")).repartition(2).cache()
    count, (images, labels) = rows.count(), mnist("test")
    known = {"features_col": "image", "batch_size": BATCH, "num_epoch": options.epochs, "seed": 0}
    for workers in (1, 2):
        for warm in (False, True):
            model, devices = keras_model(), Devices()
            model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
            make: Any = SingleTrainer if workers == 1 else partial(DOWNPOUR, num_workers=workers)
            trainer = make(model, **known)
            checked = {} if warm else {"check": told_by(trainer.check(rows))}
            began = time.perf_counter()
            trained = trainer.train(rows, shuffle=True, monitor=devices)
            seconds = time.perf_counter() - began
            guessed = trained.predict(images, batch_size=1000, verbose=0).argmax(1)
            yield {
                "place": place,
                "workers": workers,
                "warm": warm,
                "devices": [devices.found.get(worker) for worker in range(workers)],
                "seconds": round(seconds, 2),
                "rows_per_second": round(count * options.epochs / seconds),
                "accuracy": round(float(np.mean(guessed == labels)), 4),
                **checked,
            }
    spark.stop()


def told_by(diagnosis: Any) -> list[str]:
    """Return what `check` says about GPUs, and all that is not fine."""
    told = (each for each in diagnosis.findings if each.about == "GPU" or each.level != "ok")
    return [str(each) for each in told]


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--places", nargs="+", choices=PLACES, default=PLACES)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--address", default="0", help="of the executor's GPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", choices=PLACES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        with tempfile.TemporaryDirectory() as folder:
            for figures in trainings(options.child, options, Path(folder)):
                print(json.dumps(figures), flush=True)
        return
    run = recording.begin(__file__)
    report: dict[str, Any] = {
        "accelerator": accelerator(),
        "model": "MLP 784-500-500-10",
        "batch_size": BATCH,
        "learning_rate": RATE,
        "epochs": options.epochs,
        "results": [],
    }
    for backend in options.backends:
        for place in options.places:
            # The driver, which only predicts, computes on the CPU: the executor has the GPU for itself.
            environment = os.environ | WITHOUT
            environment |= {"KERAS_BACKEND": backend, "PYSPARK_PYTHON": sys.executable}
            words = [sys.executable, __file__, *sys.argv[1:], "--child", place]
            for line in lines_of(subprocess.Popen(words, stdout=subprocess.PIPE, env=environment)):
                print(backend, line, end="", file=sys.stderr, flush=True)
                report["results"].append({"backend": backend} | json.loads(line))
                run.write(report, options.out)


if __name__ == "__main__":
    main()
