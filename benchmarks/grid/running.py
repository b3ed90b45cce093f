"""Makes the runs of `convergence.py`, and keeps them in a file with one line for each."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# One core a job: the runs are what is parallel.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np

from distkeras.algorithms import REGISTRY
from distkeras.guidance.recommend import options_of
from distkeras.simulation import Gamma, Heterogeneous, KerasProblem, Network, StepTime, simulate
from grid.cases import Case, Grid, Outcome, settings_of
from grid.kept import kept_rows, make_missing

ROOT = Path(__file__).parents[2]
ALPHA = 0.3
"""Of the Dirichlet draw where labels are skewed."""
EVALUATIONS = 20
"""Points of a curve."""
NETWORK = Network(latency=0.01, frames=True)
"""In steps' time, which is 1: bytes are counted, and take no time."""


@functools.cache
def rows(name: str) -> tuple[Any, Any]:
    """Load the images, shape (rows, 784) and in [0, 1], and the labels, once a process."""
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(ROOT / "examples" / "data" / f"{name}.parquet")
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 784)
    return images.astype(np.float32) / 255, table["label"].to_numpy()


@functools.cache
def problem(batch_size: int, partition: str) -> KerasProblem:
    """Build the model, once a process for each kind of problem."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((784,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10)]
    return KerasProblem(
        keras.Sequential(layers),
        *rows("train"),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=batch_size,
        validation=rows("test"),
        metrics=["sparse_categorical_accuracy"],
        partition="labels" if partition == "labels" else "rows",
        alpha=ALPHA,
    )


def run(case: Case) -> Outcome:
    """Simulate one case."""
    step_time: StepTime = Gamma() if case.step_time == "gamma" else Heterogeneous()
    began = time.perf_counter()
    result = simulate(
        replace(REGISTRY[case.rule](), communication_window=case.window),
        problem(case.batch_size, case.partition),
        num_workers=case.num_workers,
        num_commits=case.num_commits,
        learning_rate=case.rate,
        step_time=step_time,
        network=NETWORK,
        evaluate_every=max(1, case.num_commits // EVALUATIONS),
        keep_centers=False,
        seed=case.seed,
        **options_of(case.rule, case.num_workers),
    )
    hits = result.metrics["sparse_categorical_accuracy"]
    num_bytes = (result.bytes_sent + result.bytes_received) / max(1, result.num_commits)
    curve = [
        (
            round(float(seconds), 2),
            int(result.samples[version]),
            int(num_bytes * version),
            round(float(hit), 5),
        )
        for seconds, version, hit in zip(result.evaluated, result.versions, hits, strict=True)
    ]
    return Outcome(
        case=case,
        accuracy=0.1 if result.diverged else curve[-1][3],
        diverged=result.diverged,
        staleness=np.bincount([int(each).bit_length() for each in result.staleness]).tolist(),
        curve=curve,
        wall_seconds=round(time.perf_counter() - began, 2),
    )


def row_of(case: Case) -> dict[str, Any]:
    """Make one run, and return it as plain JSON."""
    return asdict(run(case))


def read(path: Path) -> list[Outcome]:
    """Return the outcomes that a file holds. A last line that was cut off counts as not run."""
    return [Outcome.read(row) for row in kept_rows(path)]


def run_all(cases: Iterable[Case], grid: Grid, jobs: int, path: Path, deadline: float) -> bool:
    """Run what `path` does not hold yet, and append each run to it.

    Args:
        cases: what to run, the most important first.
        grid: written before the first run.
        jobs: processes, one core each.
        path: file of the results.
        deadline: when to begin no more runs, in seconds of the monotonic clock.

    Returns:
        Whether all of them are there.
    """
    done = {outcome.case for outcome in read(path)}
    facts = {
        "grid": settings_of(grid),
        "alpha": ALPHA,
        "evaluations": EVALUATIONS,
        "model": "784-64-10 ReLU",
    }
    return make_missing(cases, done, row_of, path=path, facts=facts, jobs=jobs, deadline=deadline)
