"""Test accuracy on MNIST after a fixed number of samples, over workers, windows and asynchronous rules.

    python benchmarks/convergence.py [--quick] [--jobs 2] [--json FILE] [--figure FILE]

An MLP 784-64-10 with ReLU, plain SGD, batch 32, in the simulator on a homogeneous cluster. Each run trains
the same number of samples in all, however many workers share them. Writes JSON and a figure, prints a table.
Runs that the JSON file already holds are not repeated: delete it to start anew.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# One core a job: the runs are what is parallel.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np

from distkeras.algorithms import REGISTRY
from distkeras.plots.style import charts, legend, line_style, save
from distkeras.simulation import Gamma, KerasProblem, simulate

ROOT = Path(__file__).parents[1]
BATCH_SIZE = 32
LEARNING_RATE = 0.1
WORKERS = (1, 2, 4, 8, 16, 32, 64)
WINDOWS = (5, 32, 10)
RULES = tuple(name for name, rule in REGISTRY.items() if not rule.synchronous and name != "Sequential")


@dataclass(frozen=True)
class Case:
    """One run to make."""

    rule: str
    window: int
    num_workers: int
    seed: int
    samples: int


@dataclass(frozen=True)
class Outcome(Case):
    """A run that was made; `accuracy` is that of chance where it diverged."""

    accuracy: float
    loss: float | None
    diverged: bool
    mean_staleness: float
    virtual_seconds: float
    wall_seconds: float


def windows_of(name: str) -> tuple[int, int, int]:
    """Return the rule's default window and two others."""
    default = REGISTRY[name]().communication_window or 1
    first, second = [window for window in WINDOWS if window != default][:2]
    return default, first, second


@functools.cache
def problem() -> KerasProblem:
    """Build the model and load the data, once a process."""
    import keras
    import pyarrow.parquet

    def load(name: str) -> tuple[Any, Any]:
        table = pyarrow.parquet.read_table(ROOT / "examples" / "data" / f"{name}.parquet")
        images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, 784)
        return images.astype(np.float32) / 255, table["label"].to_numpy()

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((784,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),
    ]
    return KerasProblem(
        keras.Sequential(layers),
        *load("train"),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=BATCH_SIZE,
        validation=load("test"),
        metrics=["sparse_categorical_accuracy"],
    )


def run(case: Case) -> Outcome:
    """Simulate one case."""
    rule = replace(REGISTRY[case.rule](), communication_window=case.window)
    num_commits = math.ceil(case.samples / (BATCH_SIZE * case.window))
    began = time.perf_counter()
    result = simulate(
        rule,
        problem(),
        num_workers=case.num_workers,
        num_commits=num_commits,
        # Momentum lengthens the steps: with this, all rules step alike.
        learning_rate=LEARNING_RATE * (1 - getattr(rule, "momentum", 0.0)),
        step_time=Gamma(),
        evaluate_every=num_commits,
        keep_centers=False,
        seed=case.seed,
    )
    loss = float(result.losses[-1])
    return Outcome(
        **asdict(case),
        accuracy=0.1 if result.diverged else float(result.metrics["sparse_categorical_accuracy"][-1]),
        loss=loss if math.isfinite(loss) else None,
        diverged=result.diverged,
        mean_staleness=float(result.staleness.mean()),
        virtual_seconds=float(result.times[-1]),
        wall_seconds=time.perf_counter() - began,
    )


def run_all(cases: Iterable[Case], jobs: int, path: Path) -> list[Outcome]:
    """Run what `path` does not hold yet; write it after every run."""
    outcomes = [Outcome(**row) for row in json.loads(path.read_text())["runs"]] if path.exists() else []
    wanted = list(cases)
    done = {case_of(outcome) for outcome in outcomes}
    missing = [case for case in wanted if case not in done]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by fork: JAX runs threads.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for number, future in enumerate(as_completed(pool.submit(run, case) for case in missing), 1):
            outcomes.append(outcome := future.result())
            print(f"[{number}/{len(missing)}] {outcome}", flush=True)
            settings = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "model": "784-64-10 ReLU"}
            rows = [asdict(row) for row in sorted(outcomes, key=order)]
            path.write_text(json.dumps({**settings, "runs": rows}, indent=1) + "\n")
    chosen = set(wanted)
    return sorted((outcome for outcome in outcomes if case_of(outcome) in chosen), key=order)


def case_of(outcome: Outcome) -> Case:
    """Return what was to be run."""
    return Case(outcome.rule, outcome.window, outcome.num_workers, outcome.seed, outcome.samples)


def order(outcome: Outcome) -> tuple[int, int, int, int]:
    """Sort as the tables stand."""
    return RULES.index(outcome.rule), outcome.window, outcome.num_workers, outcome.seed


def curves(outcomes: list[Outcome]) -> dict[tuple[str, int], dict[int, list[float]]]:
    """Return the accuracies of all seeds, by rule and window, then by workers."""
    table: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for outcome in outcomes:
        table[outcome.rule, outcome.window][outcome.num_workers].append(100 * outcome.accuracy)
    return table


def markdown(outcomes: list[Outcome]) -> str:
    """Return the mean accuracy over seeds, a row for each rule and window; the default window in bold."""
    workers = sorted({outcome.num_workers for outcome in outcomes})
    lines = ["| rule, window | " + " | ".join(f"N = {count}" for count in workers) + " |"]
    lines.append("|---" * (len(workers) + 1) + "|")
    for (rule, window), curve in curves(outcomes).items():
        label = f"**{rule}, {window}**" if window == windows_of(rule)[0] else f"{rule}, {window}"
        means = " | ".join(f"{statistics.mean(curve[count]):.1f}" for count in workers)
        lines.append(f"| {label} | {means} |")
    return "\n".join(lines)


def draw(outcomes: list[Outcome], path: Path) -> None:
    """Draw one plot a rule: accuracy against workers, a line a window, a band from worst to best seed."""
    table = curves(outcomes)
    rules = sorted({outcome.rule for outcome in outcomes}, key=RULES.index)
    columns = min(5, len(rules))
    rows = math.ceil(len(rules) / columns)
    title = f"MNIST, MLP 784-64-10, after {outcomes[0].samples:,} samples in all (simulated)"
    figure, by_row = charts(rows, columns, title, width=3, sharex=True, sharey=True)
    grid = [axes for row in by_row for axes in row]
    for axes, rule in zip(grid, rules, strict=False):
        for number, window in enumerate(windows_of(rule)):
            curve = table[rule, window]
            workers = sorted(curve)
            default = window == windows_of(rule)[0]
            [line] = axes.plot(
                workers,
                [statistics.mean(curve[count]) for count in workers],
                marker=".",
                linewidth=2 if default else 1,
                label=f"H = {window}" + (" (default)" if default else ""),
                **line_style(number),
            )
            low, high = ([pick(curve[count]) for count in workers] for pick in (min, max))
            axes.fill_between(workers, low, high, color=line.get_color(), alpha=0.15)
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted({outcome.num_workers for outcome in outcomes}))
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(title=rule, ylim=(0, 100))
        legend(axes, loc="lower left")
    for axes in grid[len(rules) :]:
        axes.set_visible(False)
    figure.supxlabel("workers N")
    figure.supylabel("test accuracy [%]")
    save(figure, path)


def main() -> None:
    """Run, write and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rules, workers and samples; one seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/convergence.json")
    parser.add_argument("--figure", type=Path, help="default: docs/figures/convergence.png")
    options = parser.parse_args()
    name = "convergence-quick" if options.quick else "convergence"
    rules = ("DOWNPOUR", "ADAG", "DynSGD", "AEASGD") if options.quick else RULES
    cases = [
        Case(rule, window, num_workers, seed, 15_360 if options.quick else 120_000)
        for rule in rules
        for window in windows_of(rule)
        for num_workers in ((1, 8, 32) if options.quick else WORKERS)
        for seed in range(1 if options.quick else 3)
    ]
    began = time.perf_counter()
    outcomes = run_all(cases, options.jobs, options.json or ROOT / "benchmarks" / "results" / f"{name}.json")
    draw(outcomes, options.figure or ROOT / "docs" / "figures" / f"{name}.png")
    print(f"\n{len(cases)} runs, {time.perf_counter() - began:.0f} s\n\n{markdown(outcomes)}")


if __name__ == "__main__":
    main()
