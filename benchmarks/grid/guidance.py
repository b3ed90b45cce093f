"""What `distkeras.recommend` knows: the outcomes of `convergence.py` in short."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from distkeras.guidance.measured import Measured, Table
from grid.cases import BASELINE, CONDITIONS, Grid, Outcome
from grid.tables import means

LEFT_OUT = ("HALoS",)
"""For servers in two levels. With one level it is DelayedNesterov with other settings."""
TASK = "MNIST (784-64-10, simulated)"


def write(outcomes: list[Outcome], grid: Grid, path: Path) -> None:
    """Write the table of the package."""
    alone = means(outcomes, grid).get((BASELINE, 1, *CONDITIONS[0]))
    if alone is None:
        return  # Nothing to compare with yet.
    single = statistics.mean(each.accuracy for each in alone)
    measured = (*chosen(outcomes, grid), *by_window(outcomes, grid))
    text = msgspec.json.encode(Table(TASK, round(single, 5), measured))
    path.write_bytes(msgspec.json.format(text, indent=1) + b"\n")


def chosen(outcomes: Iterable[Outcome], grid: Grid) -> Iterator[Measured]:
    """Yield each rule at its best point, under each condition."""
    groups: dict[tuple[int, str, str], dict[str, list[Outcome]]] = defaultdict(dict)
    for (rule, count, step_time, partition), runs in means(outcomes, grid).items():
        groups[count, step_time, partition][rule] = runs
    for _, group in sorted(groups.items()):
        yield from entries(group)


def by_window(outcomes: Iterable[Outcome], grid: Grid) -> Iterator[Measured]:
    """Yield each rule's best run of the grid at each window."""
    groups: dict[tuple[int, int], dict[str, list[Outcome]]] = defaultdict(dict)
    for outcome in outcomes:
        case = outcome.case
        if case.samples == grid.tuning_samples and case.num_workers > 1:
            group = groups[case.num_workers, case.window]
            if case.rule not in group or outcome.accuracy > group[case.rule][0].accuracy:
                group[case.rule] = [outcome]
    for _, group in sorted(groups.items()):
        yield from entries(group)


def entries(group: dict[str, list[Outcome]]) -> Iterator[Measured]:
    """Yield a measurement for each rule of one condition, in the order of their names."""
    first = min(statistics.mean(run.seconds(run.curve[-1][0]) for run in runs) for runs in group.values())
    for rule, runs in sorted(group.items()):
        case = runs[0].case
        if rule in LEFT_OUT:
            continue
        yield Measured(
            rule="Sequential" if case.num_workers == 1 else rule,
            num_workers=case.num_workers,
            machines="alike" if case.step_time == "gamma" else "unequal",
            data="alike" if case.partition == "rows" else "skewed",
            window=case.window,
            batch_size=case.batch_size,
            learning_rate=case.rate,
            accuracy=round(statistics.mean(run.accuracy for run in runs), 5),
            in_time=round(statistics.mean(accuracy_at(run, first) for run in runs), 5),
            rows=case.samples,
            seeds=len(runs),
        )


def accuracy_at(run: Outcome, seconds: float) -> float:
    """Return a run's accuracy at a time, between its evaluations."""
    if run.diverged:
        return run.accuracy
    times, _, _, hits = zip(*run.curve, strict=True)
    return float(np.interp(seconds, [run.seconds(time) for time in times], hits))
