"""Makes the runs of `language.py`."""

from __future__ import annotations

import functools
import math
import os
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# One core a job: the runs are what is parallel.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
# All rates of an optimizer have the same programs, which then are compiled once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "language-programs"))

from grid.kept import kept_rows

from characters.cases import METHODS, WINDOW, Case, Method, Outcome
from characters.text import CONTEXT, NUM_TOKENS, rows
from distkeras.simulation import Gamma, Heterogeneous, KerasProblem, Network, StepTime, simulate

ROOT = Path(__file__).parents[2]
WIDTH, HEADS, BLOCKS = 64, 4, 2
EVALUATIONS = 12
"""Points of a curve."""
TRANSFER_SECONDS = 2.5
"""For which all weights are on their way in one direction, uncompressed; a step takes 1."""


def make_model() -> Any:
    """Return a causal transformer of about 83,700 weights, that begins the same each time."""
    import keras

    class Positions(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        """Adds a vector for each place."""

        def build(self, shape: Any) -> None:
            self.table = self.add_weight(shape=shape[1:], initializer="normal", name="table")

        def call(self, x: Any) -> Any:
            return x + self.table

    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = keras.Input((CONTEXT,), dtype="int32")
    x = Positions()(layers.Embedding(NUM_TOKENS, WIDTH)(tokens))
    for _ in range(BLOCKS):
        seen = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(seen, seen, use_causal_mask=True)
        hidden = layers.Dense(2 * WIDTH, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(WIDTH)(hidden)
    return keras.Model(tokens, layers.Dense(NUM_TOKENS)(layers.LayerNormalization()(x)))


@functools.cache
def problem(optimizer: str, rate: float, batch_size: int) -> KerasProblem:
    """Build the model and what trains it, once a process for each kind."""
    import keras

    trained, held_out = rows()
    return KerasProblem(
        make_model(),
        *trained,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=batch_size,
        optimizer=getattr(keras.optimizers, optimizer)(learning_rate=rate),
        validation=held_out,
    )


def network(method: Method, num_bytes: int) -> Network:
    """Return a slow network; none for one worker."""
    if method.num_workers == 1:
        return Network()
    return Network(latency=0.05, bandwidth=num_bytes / TRANSFER_SECONDS, frames=True)


def run(case: Case) -> Outcome:
    """Simulate one case."""
    method = METHODS[case.method]
    built = problem(method.optimizer, case.rate, method.batch_size)
    step_time: StepTime = Gamma() if case.machines == "gamma" else Heterogeneous()
    sequences = -(-case.tokens // CONTEXT)
    algorithm = method.algorithm()
    rows_of_commit = method.batch_size * WINDOW // (algorithm.fragments or 1)
    rows_of_commit *= method.num_workers if algorithm.synchronous else 1
    began = time.process_time()
    result = simulate(
        algorithm,
        built,
        num_workers=method.num_workers,
        num_samples=sequences,
        step_time=step_time,
        network=network(method, built.initial.nbytes),
        evaluate_every=max(1, sequences // rows_of_commit // EVALUATIONS),
        keep_centers=False,
        seed=case.seed,
        **method.options,
    )
    num_bytes = (result.bytes_sent + result.bytes_received) / max(1, result.num_commits)
    curve = [
        (
            round(float(seconds), 1),
            int(result.samples[version]) * CONTEXT,
            int(num_bytes * version) if method.num_workers > 1 else 0,
            round(math.exp(loss), 4),
        )
        for seconds, version, loss in zip(result.evaluated, result.versions, result.losses, strict=True)
    ]
    found = math.inf if result.diverged else curve[-1][3]
    return Outcome(case, found, curve, round(time.process_time() - began, 1))


def row_of(case: Case) -> dict[str, Any]:
    """Make one run, and return it as plain JSON, which knows no infinity."""
    row = asdict(run(case))
    if not math.isfinite(row["perplexity"]):
        row["perplexity"] = None
    return row


def read(path: Path) -> list[Outcome]:
    """Return the outcomes that a file holds. A last line that was cut off counts as not run."""
    return [Outcome.read(row) for row in kept_rows(path)]
