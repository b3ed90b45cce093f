"""A worker against the bare compiled step and against `keras.fit`, on one core. JSON to benchmarks/results.

python benchmarks/step.py [--quick] [--backends jax tensorflow torch] [--models mlp ...] [--batches 32 128]

For each backend a process of its own, made ready as a Spark task is and pinned to one core, trains by turns:

- worker: as in `SingleTrainer`: feed from the spool on disk, shuffled; a commit to a server process after
  every 50 minibatches;
- bare:   Keras's `train_step`, compiled, called on minibatches gathered by the same kind of order in memory;
- fit:    `keras.Model.fit` on the same arrays, shuffled.

Each turn is one epoch; medians over the turns, by wall time and by CPU time. Another process, not pinned,
gives the cores that the worker uses: CPU time over wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import recording

BACKENDS = ("jax", "tensorflow", "torch")
BATCHES = (32, 128)
PIXELS = 784
RESULTS = Path(__file__).parent / "results" / "step.json"


def build(name: str) -> Any:
    """Return the model `name`, compiled with SGD."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    stacks: dict[str, list[Any]] = {
        "mlp-64": [keras.Input((PIXELS,)), layers.Dense(64, activation="relu")],
        "mlp-500-500": [
            keras.Input((PIXELS,)),
            layers.Dense(500, activation="relu"),
            layers.Dense(500, activation="relu"),
        ],
        "cnn": [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
        ],
        "lstm": [keras.Input((28, 28)), layers.LSTM(64)],
    }
    model = keras.Sequential([*stacks[name], layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


WINDOW = 50
"""Minibatches between two exchanges, as in `SingleTrainer`. Every turn ends with one: nothing stays open."""

WINDOWS = {"mlp-64": 12, "mlp-500-500": 4, "cnn": 1, "lstm": 2}
"""Of one turn."""


@dataclass
class Clock:
    """Seconds of wall and of CPU time of every turn, by side."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def time(self, side: str, work: Callable[[], object]) -> None:
        """Do `work` and note how long it took."""
        began, began_cpu = time.perf_counter(), time.process_time()
        work()
        self.note(side, began, began_cpu)

    def note(self, side: str, began: float, began_cpu: float) -> None:
        """Note what has passed since `began`."""
        self.wall.setdefault(side, []).append(time.perf_counter() - began)
        self.cpu.setdefault(side, []).append(time.process_time() - began_cpu)

    def report(self, rows: int, warm_up: int = 1) -> dict[str, Any]:
        """Return medians of the turns after `warm_up`."""
        wall = {side: statistics.median(taken[warm_up:]) for side, taken in self.wall.items()}
        cpu = {side: statistics.median(taken[warm_up:]) for side, taken in self.cpu.items()}
        figures: dict[str, Any] = {
            "rows_per_second": {side: round(rows / taken) for side, taken in wall.items()},
            "cpu_over_wall": {side: round(cpu[side] / wall[side], 3) for side in wall},
        }
        for name, taken in (("over", wall), ("over_by_cpu_time", cpu)):
            figures[f"worker_{name}"] = {
                side: round(taken[side] / taken["worker"], 3) for side in taken if side != "worker"
            }
        return figures


def data(rows: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return random images, shape (rows, 784), and labels."""
    draw = np.random.default_rng(0)
    return draw.random((rows, PIXELS), np.float32), draw.integers(0, 10, rows).astype(np.int32)


def record_batches(x: npt.NDArray[np.float32], y: npt.NDArray[np.int32]) -> Iterator[pa.RecordBatch]:
    """Yield the rows as Spark sends them."""
    for first in range(0, len(x), 10_000):
        part = x[first : first + 10_000]
        offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * PIXELS)
        images = pa.ListArray.from_arrays(offsets, pa.array(part.ravel()))
        yield pa.RecordBatch.from_arrays([images, pa.array(y[first : first + 10_000])], ["image", "label"])


def bare_step(backend: str, model: Any) -> Callable[[Any, Any], Callable[[], object]]:
    """Return Keras's own `train_step` of `model`, compiled as the backend's users would.

    It takes a minibatch, and returns what waits for its end.
    """
    if backend == "torch":
        model.train()
        return lambda x, y: model.train_step((x, y, None))["loss"].item
    if backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(model.train_step, jit_compile=model.jit_compile, reduce_retracing=True)
        return lambda x, y: compiled((x, y, None))["loss"].numpy
    import jax

    step = jax.jit(model.train_step, donate_argnums=0)
    groups = [model.trainable_variables, model.non_trainable_variables]
    groups += [model.optimizer.variables, model.metrics_variables]
    state = tuple([variable.value for variable in group] for group in groups)

    def train(x: Any, y: Any) -> Callable[[], object]:
        nonlocal state
        logs, state = step(state, (x, y, None))
        return logs["loss"].block_until_ready  # type: ignore[no-any-return]

    return train


class Turns:
    """A feed that, after every epoch of the worker, has the other sides train one too."""

    def __init__(
        self, feed: Any, clock: Clock, others: dict[str, Callable[[], None]], side: str = "worker"
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._others = others
        self._side = side

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield the minibatches of the worker's epoch, then let the others train."""
        began, began_cpu = time.perf_counter(), time.process_time()
        yield from self._feed.epoch(epoch, start)
        if epoch:  # The first one spools.
            self._clock.note(self._side, began, began_cpu)
            for side, work in self._others.items():
                self._clock.time(side, work)


def others(
    backend: str, name: str, batch_size: int, x: npt.NDArray[np.float32], y: npt.NDArray[np.int32]
) -> dict[str, Callable[[], None]]:
    """Return one epoch of each side that is not ours."""
    bare, fitted = build(name), build(name)
    x = x.reshape(-1, *fitted.input_shape[1:])
    bare.optimizer.build(bare.trainable_variables)
    bare._symbolic_build(data_batch=(x[:batch_size], y[:batch_size], None))
    step, draw = bare_step(backend, bare), np.random.default_rng(0)

    def train_bare() -> None:
        order = draw.permutation(len(x))
        for first in range(0, len(x), batch_size):
            rows = order[first : first + batch_size]
            wait = step(x[rows], y[rows])
        wait()

    def fit() -> None:
        fitted.fit(x, y, batch_size=batch_size, shuffle=True, verbose=0)

    return {"bare": train_bare, "fit": fit}


def measure(backend: str, name: str, batch_size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one model."""
    from distkeras.algorithms import Sequential
    from distkeras.center import CenterConfig
    from distkeras.cluster.server import ServerProcess, ServerSetup
    from distkeras.model.spec import deserialize_model, serialize_model
    from distkeras.model.weights import initial_vector
    from distkeras.wire.client import Client
    from distkeras.worker.backends import make_replica
    from distkeras.worker.columns import Column, Columns
    from distkeras.worker.feed import Feed
    from distkeras.worker.loop import Loop

    rows = WINDOW * max(1, WINDOWS[name] // (4 if options.quick else 1)) * batch_size
    x, y = data(rows)
    model = deserialize_model(serialize_model(build(name)), blank=True)
    columns = Columns(
        (Column("image", tuple(model.input_shape[1:]), "float32"),), (Column("label", (), "int32"),)
    )
    initial, replica = initial_vector(build(name)), make_replica(model)
    rule, clock = Sequential(WINDOW), Clock()
    turns = 4 if options.quick else 6
    sides = {} if options.free else others(backend, name, batch_size, x, y)
    pinned = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # What the server process begins with.
    config = CenterConfig(rule, num_trainable=replica.layout.num_trainable)
    server = ServerProcess(ServerSetup(config), initial)
    os.sched_setaffinity(0, pinned)
    feed = Feed(
        record_batches(x, y), columns, batch_size=batch_size, partition=0, shuffle=True, num_epoch=turns + 1
    )
    with server, Client(server.address) as client, feed:
        Loop(
            replica,
            Turns(feed, clock, sides),
            rule,
            client.call,
            worker=0,
            num_epoch=turns + 1,
        ).run()
    return clock.report(rows)


def run_backend(backend: str, options: argparse.Namespace) -> None:
    """Measure every model on one backend, in this process; print the figures."""
    if not options.free:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    from distkeras.worker.environment import prepare_process

    prepare_process(backend, 1)
    for name in options.models:
        for batch_size in options.batches:
            figures = {"backend": backend, "model": name, "batch_size": batch_size}
            print(json.dumps(figures | measure(backend, name, batch_size, options)), flush=True)


def figures_of(backend: str, *, free: bool) -> list[dict[str, Any]]:
    """Run `run_backend` in a process of its own and return what it prints."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", backend, *(["--free"] if free else [])]
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout or ():
            print(line, end="", file=sys.stderr, flush=True)
            found.append(json.loads(line))
    if child.returncode:
        raise RuntimeError(f"Measuring on {backend} failed with exit code {child.returncode}.")
    return found


def main() -> None:
    """Measure on every backend and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows, 3 turns for 5")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--models", nargs="+", choices=WINDOWS, default=list(WINDOWS))
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--child", choices=BACKENDS, help=argparse.SUPPRESS)
    parser.add_argument("--free", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        run_backend(options.child, options)
        return
    run = recording.begin(__file__)
    results = []
    for backend in options.backends:
        for pinned, free in zip(figures_of(backend, free=False), figures_of(backend, free=True), strict=True):
            results.append(pinned | {"worker_cores": free["cpu_over_wall"]["worker"]})
    run.write({"results": results})


if __name__ == "__main__":
    main()
