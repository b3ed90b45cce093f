"""What a worker gains from more cores (`spark.task.cpus`): rows per second with 1, 2, ... cores. JSON out.

python benchmarks/cores.py [--cores 1 2] [--backends jax tensorflow torch] [--models mlp-2048 cnn-64]
                           [--turns 5] [--out FILE]

Each number of cores has a process of its own, made ready as a Spark task with so many cores is, and pinned to
them. The processes train the same minibatches by turns, one at a time. The gain of a turn is that over the
process with one core next to it; median and range over the turns. The load of the machine is in the record:
on a busy one the figures say little, since a process with two cores needs both at once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import recording

BACKENDS = ("jax", "tensorflow", "torch")
MODELS = {"mlp-2048": 256, "cnn-64": 64}
"""Rows of a minibatch. Both have enough to do in one operation for several cores."""
SECONDS = 2.0
"""About how long a turn takes."""
RESULTS = Path(__file__).parent / "results" / "cores.json"


def build(name: str) -> Any:
    """Return the model `name`, compiled with SGD."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    stacks: dict[str, list[Any]] = {
        "mlp-2048": [
            keras.Input((784,)),
            layers.Dense(2048, activation="relu"),
            layers.Dense(2048, activation="relu"),
        ],
        "cnn-64": [
            keras.Input((32, 32, 3)),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ],
    }
    model = keras.Sequential([*stacks[name], layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


def serve(backend: str, cores: int, name: str) -> None:
    """Train as many minibatches as each line of standard input says; print seconds of wall and CPU time."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    from distkeras.worker.environment import prepare_process

    prepare_process(backend, cores)
    from distkeras.worker.backends import make_replica

    model, batch_size, draw = build(name), MODELS[name], np.random.default_rng(0)
    x = draw.random((batch_size, *model.input_shape[1:]), np.float32)
    y = draw.integers(0, 10, batch_size).astype(np.int32)
    replica = make_replica(model)
    for line in sys.stdin:
        began, began_cpu = time.perf_counter(), time.process_time()
        for _ in range(int(line)):
            replica.train(x, y)
        replica.metrics()
        print(json.dumps([time.perf_counter() - began, time.process_time() - began_cpu]), flush=True)


class Trainee:
    """A process with so many cores.

    Args:
        backend: the Keras backend.
        cores: number of cores.
        name: the model.
    """

    def __init__(self, backend: str, cores: int, name: str) -> None:
        command = [sys.executable, __file__, "--child", backend, str(cores), name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def train(self, steps: int) -> tuple[float, float]:
        """Train, and return the seconds of wall and CPU time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"A process ended with exit code {self._process.wait()}.")
        wall, cpu = json.loads(answer)
        return wall, cpu

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def measure(backend: str, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model on one backend."""
    trainees = {cores: Trainee(backend, cores, name) for cores in options.cores}
    try:
        for each in trainees.values():
            each.train(3)  # It compiles.
        wall, _ = trainees[options.cores[0]].train(3)
        steps = max(3, round(3 * SECONDS / wall))
        turns = [{cores: each.train(steps) for cores, each in trainees.items()} for _ in range(options.turns)]
    finally:
        for each in trainees.values():
            each.end()
    rows, least = steps * MODELS[name], options.cores[0]
    return {
        "backend": backend,
        "model": name,
        "batch_size": MODELS[name],
        "rows_per_second": {
            cores: round(rows / statistics.median(turn[cores][0] for turn in turns)) for cores in trainees
        },
        "cores_used": {
            cores: round(statistics.median(turn[cores][1] / turn[cores][0] for turn in turns), 2)
            for cores in trainees
        },
        "gain": {
            cores: spread([turn[least][0] / turn[cores][0] for turn in turns]) for cores in options.cores[1:]
        },
    }


def spread(values: list[float]) -> list[float]:
    """Return the least, the median and the greatest of `values`."""
    return [round(each, 2) for each in (min(values), statistics.median(values), max(values))]


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cores", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        backend, cores, name = options.child
        serve(backend, int(cores), name)
        return
    there = len(os.sched_getaffinity(0))
    if max(options.cores) > there:
        parser.error(f"This machine has {there} cores. Received: --cores {options.cores}")
    run = recording.begin(__file__)
    report: dict[str, Any] = {"results": []}
    for backend in options.backends:
        for name in options.models:
            report["results"].append(measure(backend, name, options))
            print(json.dumps(report["results"][-1]), flush=True)
            run.write(report, options.out)


if __name__ == "__main__":
    main()
