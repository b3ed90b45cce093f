"""Speed of the simulator with a real model: an MLP 784-64-10, 256 workers, batch 32, on JAX. JSON out.

    python benchmarks/simulate_model.py [--windows 1,5,32] [--turns 5] [--rounds 8]

In turns: the bare batched step, which trains one minibatch of each worker by one compiled call of plain JAX
and does nothing else; the simulator, by one compiled call for many windows; the simulator, window by window.
Numbers are minibatch steps a second over all workers, by wall time and by CPU time (of all threads), which
other processes disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import recording

from distkeras.algorithms import DOWNPOUR
from distkeras.simulation import KerasProblem, simulate

NUM_WORKERS, BATCH_SIZE, ROWS = 256, 32, 60_000
BARE_STEPS = 20
Seconds = tuple[float, float]


def data() -> tuple[Any, Any]:
    """Return random data of the size of MNIST: speed does not depend on the values."""
    rng = np.random.default_rng(0)
    return rng.random((ROWS, 784), np.float32), rng.integers(0, 10, ROWS).astype(np.int32)


def bare_step(x: Any, y: Any) -> Callable[[], None]:
    """Return a function that trains `BARE_STEPS` minibatches of all workers, all of it on the device."""
    import jax
    from jax import numpy as jnp

    rng = np.random.default_rng(1)
    shapes = ((784, 64), (64,), (64, 10), (10,))
    held = {
        "weights": [
            jnp.asarray(np.repeat(rng.normal(0, 0.05, (1, *shape)).astype(np.float32), NUM_WORKERS, 0))
            for shape in shapes
        ]
    }
    x, y = jnp.asarray(x), jnp.asarray(y)
    rows = jnp.asarray(rng.integers(0, ROWS, (BARE_STEPS, NUM_WORKERS, BATCH_SIZE)).astype(np.int32))

    def loss(weights: Any, x: Any, y: Any) -> Any:
        first, first_bias, second, second_bias = weights
        logits = jax.nn.relu(x @ first + first_bias) @ second + second_bias
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

    def step(weights: Any, x: Any, y: Any, rows: Any) -> Any:
        gradient = jax.grad(loss)(weights, x[rows], y[rows])
        return [weight - 0.001 * part for weight, part in zip(weights, gradient, strict=True)]

    program = jax.jit(jax.vmap(step, (0, None, None, 0)), donate_argnums=0)

    def train() -> None:
        for number in range(BARE_STEPS):
            held["weights"] = program(held["weights"], x, y, rows[number])
        jax.block_until_ready(held["weights"])

    return train


def problem(x: Any, y: Any, vectorize: bool) -> KerasProblem:
    """Return the MLP as a problem; its evaluation is short."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((784,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    return KerasProblem(
        keras.Sequential(layers),
        x,
        y,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=BATCH_SIZE,
        validation=(x[:256], y[:256]),
        vectorize=vectorize,
    )


def run(problem: KerasProblem, window: int, num_commits: int) -> None:
    """Simulate DOWNPOUR, whose rule costs least; evaluations only at both ends."""
    simulate(
        DOWNPOUR(communication_window=window),
        problem,
        num_workers=NUM_WORKERS,
        num_commits=num_commits,
        learning_rate=1e-4,
        evaluate_every=num_commits,
        keep_centers=False,
    )


def seconds(function: Callable[..., None], *arguments: Any) -> Seconds:
    """Return wall and CPU seconds of a call."""
    began, used = time.perf_counter(), time.process_time()
    function(*arguments)
    return time.perf_counter() - began, time.process_time() - used


def measure(windows: list[int], turns: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Measure each window; yield the rows of the report."""
    x, y = data()
    bare = bare_step(x, y)
    together, in_turn = problem(x, y, True), problem(x, y, False)
    bare()
    for window in windows:
        # Fewer commits are enough for one window after another: each costs the same.
        few, many = max(5 * NUM_WORKERS // window, 40), NUM_WORKERS * rounds
        run(together, window, many)
        run(in_turn, window, few)
        times: dict[str, list[Seconds]] = {"bare": [], "one call": [], "one by one": []}
        for _ in range(turns):
            times["bare"].append(seconds(bare))
            times["one call"].append(seconds(run, together, window, many))
            times["one by one"].append(seconds(run, in_turn, window, few))
        steps = {
            "bare": BARE_STEPS * NUM_WORKERS,
            "one call": many * window,
            "one by one": few * window,
        }
        row: dict[str, Any] = {"window": window}
        for index, clock in enumerate(("wall", "cpu")):
            speed = {
                name: steps[name] / statistics.median(pair[index] for pair in taken)
                for name, taken in times.items()
            }
            row[f"steps_per_{clock}_second"] = {name: round(value) for name, value in speed.items()}
            row[f"of_bare_by_{clock}"] = round(speed["one call"] / speed["bare"], 3)
            row[f"times_one_by_one_by_{clock}"] = round(speed["one call"] / speed["one by one"], 2)
        yield row


def report(windows: list[int], turns: int, rounds: int) -> dict[str, Any]:
    """Measure each window, with its machine."""
    import jax

    return {
        "device": str(jax.devices()[0].device_kind),
        "num_workers": NUM_WORKERS,
        "batch_size": BATCH_SIZE,
        "windows": list(measure(windows, turns, rounds)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", default="1,5,32")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8, help="commits of each worker")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    run = recording.begin(__file__)
    windows = [int(window) for window in options.windows.split(",")]
    found = report(windows, options.turns, options.rounds)
    print(json.dumps(found, indent=2))
    if options.out is not None:
        run.write(found, options.out)


if __name__ == "__main__":
    main()
