"""Figures of `convergence.py`."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from distkeras.algorithms import REGISTRY
from grid.cases import BASELINE, CONDITIONS, Case, Grid, Outcome
from grid.tables import means

THRESHOLDS = (0.97, 0.95, 0.9)
"""The time to the first of these that one worker reaches is drawn."""
SHOWN = 8
"""Most rules in one plot."""
AXES = (("virtual time [s]", 0), ("rows", 1), ("bytes", 2))


def draw_all(outcomes: list[Outcome], grid: Grid, folder: Path) -> list[Path]:
    """Draw every figure for which there are runs; return their files."""
    drawn = {
        "convergence_curves": curves(outcomes, grid),
        "convergence_speed": speed(outcomes, grid),
        "convergence_rates": rates(outcomes, grid),
        "convergence_staleness": staleness(outcomes, grid),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            figure.savefig(paths[-1], dpi=120)
    return paths


def leaders(outcomes: list[Outcome], grid: Grid, num_workers: int) -> list[str]:
    """Return the best rules at so many equal workers, best first."""
    found = {
        rule: statistics.mean(each.accuracy for each in runs)
        for (rule, count, *conditions), runs in means(outcomes, grid).items()
        if count == num_workers and tuple(conditions) == CONDITIONS[0]
    }
    return sorted(found, key=lambda rule: -found[rule])[:SHOWN]


def curves(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return accuracy over virtual time, rows and bytes, a row of plots for each tuned number of workers."""
    from matplotlib.figure import Figure

    found = means(outcomes, grid)
    counts = [count for count in sorted(grid.tuned) if leaders(outcomes, grid, count)]
    if not counts:
        return None
    figure = Figure(figsize=(13, 3.6 * len(counts)), layout="constrained")
    plots = figure.subplots(len(counts), len(AXES), squeeze=False, sharey=True)
    for row, count in zip(plots, counts, strict=True):
        shown = [(rule, count) for rule in leaders(outcomes, grid, count)] + [(BASELINE, 1)]
        for rule, workers in shown:
            runs = found.get((rule, workers, *CONDITIONS[0]), [])
            if runs:
                points = mean_curve(runs)
                style = "k--" if workers == 1 else "--" if REGISTRY[rule].synchronous else "-"
                label = "one worker" if workers == 1 else rule
                for axes, (_, column) in zip(row, AXES, strict=True):
                    axes.plot([p[column] for p in points], [100 * p[3] for p in points], style, label=label)
        for axes, (name, _) in zip(row, AXES, strict=True):
            axes.set(xlabel=name, xscale="log", title=f"N = {count}")
            axes.grid(alpha=0.3)
        row[0].set(ylabel="test accuracy [%]", ylim=(70, 99))
        row[0].legend(fontsize="x-small")
    return figure


def mean_curve(runs: list[Outcome]) -> list[tuple[float, ...]]:
    """Return the mean of curves, point by point; the first is before any training."""
    return [
        tuple(statistics.mean(values) for values in zip(*points, strict=True))
        for points in zip(*(run.curve[1:] for run in runs), strict=False)
    ]


def time_to(runs: list[Outcome], threshold: float) -> float | None:
    """Return the mean virtual seconds to an accuracy; `None` if a run does not reach it."""
    times = [next((point[0] for point in run.curve if point[3] >= threshold), None) for run in runs]
    reached = [time for time in times if time is not None]
    return statistics.mean(reached) if reached and len(reached) == len(times) else None


def speed(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return how much sooner N workers reach an accuracy than one, beside N times as fast."""
    from matplotlib.figure import Figure

    found = means(outcomes, grid)
    alone = found.get((BASELINE, 1, *CONDITIONS[0]), [])
    threshold = next((each for each in THRESHOLDS if alone and time_to(alone, each) is not None), None)
    if threshold is None:
        return None
    base = time_to(alone, threshold) or math.nan
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for (rule, count, *conditions), runs in sorted(found.items()):
        if (
            tuple(conditions) == CONDITIONS[0]
            and (time := time_to(runs, threshold)) is not None
            and count > 1
        ):
            lines[rule].append((count, base / time))
    best = sorted(lines, key=lambda rule: -max(ratio for _, ratio in lines[rule]))[:SHOWN]
    for rule in best:
        axes.plot(
            *zip(*sorted(lines[rule]), strict=True), "o--" if REGISTRY[rule].synchronous else "o-", label=rule
        )
    counts = sorted({1, *grid.workers})
    axes.plot(counts, counts, "k:", label="ideal")
    axes.set(xscale="log", yscale="log", xlabel="workers N", ylabel=f"times sooner at {100 * threshold:g} %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")
    return figure


def rates(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return the best accuracy over the learning rate, a plot for each tuned number of workers."""
    from matplotlib.figure import Figure

    best: dict[tuple[int, str], dict[float, float]] = defaultdict(dict)
    for outcome in outcomes:
        case: Case = outcome.case
        if case.samples == grid.tuning_samples and case.num_workers > 1:
            line = best[case.num_workers, case.rule]
            line[case.rate] = max(outcome.accuracy, line.get(case.rate, 0.0))
    counts = sorted({count for count, _ in best})
    if not counts:
        return None
    figure = Figure(figsize=(4.5 * len(counts), 4), layout="constrained")
    for axes, count in zip(figure.subplots(1, len(counts), squeeze=False)[0], counts, strict=True):
        ranked = sorted(
            (rule for other, rule in best if other == count),
            key=lambda rule: -max(best[count, rule].values()),
        )
        for rule in ranked[:SHOWN]:
            style = ".--" if REGISTRY[rule].synchronous else ".-"
            points = sorted(best[count, rule].items())
            axes.plot([rate for rate, _ in points], [100 * hits for _, hits in points], style, label=rule)
        axes.set(xscale="log", xlabel="learning rate", ylabel="test accuracy [%]", title=f"N = {count}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    return figure


def staleness(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return the staleness of commits on equal and unequal machines, for the largest tuned number."""
    from matplotlib.figure import Figure

    count = max(grid.tuned)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    largest = 0
    for step_time, partition in CONDITIONS[:2]:
        totals: dict[int, int] = defaultdict(int)
        for (rule, workers, *conditions), runs in means(outcomes, grid).items():
            if (
                workers == count
                and tuple(conditions) == (step_time, partition)
                and not REGISTRY[rule].synchronous
            ):
                for run in runs:
                    for bits, commits in enumerate(run.staleness):
                        totals[bits] += commits
        if totals:
            largest = max(largest, *totals)
            shares = [100 * totals[bits] / sum(totals.values()) for bits in sorted(totals)]
            axes.step(sorted(totals), shares, where="mid", label=step_time)
    if not largest:
        return None
    ticks = range(largest + 1)
    axes.set_xticks(list(ticks), [str(2**bits // 2) for bits in ticks])
    axes.set(xlabel="staleness, from", ylabel="commits [%]", title=f"N = {count}, all asynchronous rules")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
