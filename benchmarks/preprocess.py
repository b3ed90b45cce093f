"""How much of a user's `preprocess` does the training wait for? JSON to benchmarks/results.

python benchmarks/preprocess.py [--rows N] [--repeats N]

Pictures of 64 x 64 x 3 bytes, packed by zlib, which unpacks without Python's lock, as readers of JPEG and PNG
do, and turned at random; then pictures that a minibatch waits 20 ms for, as for a disk or a network. A small
convolutional model trains them on JAX, from the spool, by turns:

- ahead: as a worker does, minibatches made in a thread while the step before computes;
- inline: made in the training's own thread;
- step: the same minibatches, made before.

`hidden` is the share of `preprocess` that a step hides, (inline - ahead) / (inline - step): at most
one; a single core hides nothing but waiting. Each turn is an epoch; medians over the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import recording

from distkeras.worker.columns import RAW, Column, Columns
from distkeras.worker.environment import prepare_process
from distkeras.worker.feed import Feed
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from distkeras.worker.replica import Replica

SHAPE, BATCH_SIZE, WAIT_SECONDS = (64, 64, 3), 32, 0.02


def unpacked(columns: dict[str, Any], rng: np.random.Generator) -> Any:
    """Return pictures, each turned by a random quarter."""
    pictures = [np.frombuffer(zlib.decompress(data), np.uint8).reshape(SHAPE) for data in columns["picture"]]
    turns = rng.integers(0, 4, len(pictures))
    return np.stack([np.rot90(picture, turn) for picture, turn in zip(pictures, turns, strict=True)]) / 255


def waited(columns: dict[str, Any], rng: np.random.Generator) -> Any:
    """Return pictures after a wait, as for a disk or a network."""
    time.sleep(WAIT_SECONDS)
    return rng.random((len(columns["picture"]), *SHAPE), np.float32)


def batches(num_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield packed pictures and labels."""
    draw = np.random.default_rng(0)
    for _ in range(0, num_rows, 250):
        pictures = draw.integers(0, 16, (250, *SHAPE)).astype(np.uint8)
        packed = [zlib.compress(picture.tobytes()) for picture in pictures]
        yield pa.record_batch({"c0": packed, "label": draw.integers(0, 10, 250).astype(np.int32)})


def feed(function: Any, num_rows: int, ahead: bool) -> Feed:
    """Return a feed of them."""
    preprocess = Preprocess.of(function, ("picture",), (TensorSpec("in", SHAPE),))
    columns = Columns(
        (), (Column("label", (), "int32"),), raw=(Column("c0", (9000,), RAW),), preprocess=preprocess
    )
    return Feed(batches(num_rows), columns, batch_size=BATCH_SIZE, partition=0, shuffle=True, prefetch=ahead)


def replica() -> Replica:
    """Return a model that takes about as long as its pictures."""
    import keras

    from distkeras.worker.backends import make_replica

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return make_replica(model)


def seconds(model: Replica, minibatches: Iterator[Any]) -> float:
    """Train an epoch."""
    started = time.perf_counter()
    for minibatch in minibatches:
        model.train(minibatch.x, minibatch.y)
    model.read()
    return time.perf_counter() - started


def measure(function: Any, num_rows: int, repeats: int) -> dict[str, float]:
    """Return the medians over the turns."""
    model = replica()
    turns: list[dict[str, float]] = []
    with feed(function, num_rows, True) as ahead, feed(function, num_rows, False) as inline:
        made = list(inline.epoch(0))
        for source in (ahead.epoch(0), iter(made)):  # Compiles, and fills the spools.
            seconds(model, source)
        for epoch in range(1, repeats + 1):
            before = ahead.preprocess_seconds or 0.0
            turn = {"ahead": seconds(model, ahead.epoch(epoch))}
            turn |= {
                "preprocess": (ahead.preprocess_seconds or 0.0) - before,
                "inline": seconds(model, inline.epoch(epoch)),
                "step": seconds(model, iter(made)),
            }
            turn["hidden"] = (turn["inline"] - turn["ahead"]) / (turn["inline"] - turn["step"])
            turn["inline to ahead"] = turn["inline"] / turn["ahead"]
            turns.append(turn)
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    run = recording.begin(__file__)
    prepare_process("jax", 1)  # As a worker with one core: JAX computes in the thread that asks it to.
    results: dict[str, Any] = {"rows": arguments.rows}
    for function in (unpacked, waited):
        results[function.__name__] = measure(function, arguments.rows, arguments.repeats)
    print(json.dumps(results, indent=1))
    run.write(results)


if __name__ == "__main__":
    main()
