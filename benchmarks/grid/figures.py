"""Figures of `convergence.py`."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from distkeras.algorithms import REGISTRY
from distkeras.plots.style import INK, charts, legend, line_style, save
from grid.cases import BASELINE, CONDITIONS, Case, Grid, Outcome
from grid.tables import means

THRESHOLDS = (0.97, 0.95, 0.9)
"""The time to the first of these that one worker reaches is drawn."""
SHOWN = 8
"""Most rules in one plot."""
AXES = (("time [s], where 32 rows take 1 s", 0), ("rows", 1), ("bytes", 2))


def draw_all(outcomes: list[Outcome], grid: Grid, folder: Path) -> list[Path]:
    """Draw every figure for which there are runs; return their files."""
    drawn = {
        "convergence_curves": curves(outcomes, grid),
        "convergence_speed": speed(outcomes, grid),
        "convergence_rates": rates(outcomes, grid),
        "convergence_staleness": staleness(outcomes, grid),
    }
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            paths.append(folder / f"{name}.png")
            save(figure, paths[-1])
    return paths


def line_of(rule: str, grid: Grid) -> dict[str, Any]:
    """Return label and style of a rule's line, the same in all figures."""
    label = f"{rule} (rounds)" if REGISTRY[rule].synchronous else rule
    return {"label": label, **line_style(grid.rules.index(rule))}


ALONE: dict[str, Any] = {"label": "one worker", "color": INK, "linestyle": ":", "linewidth": 2.0}


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
    found = means(outcomes, grid)
    counts = [count for count in sorted(grid.tuned) if leaders(outcomes, grid, count)]
    if not counts:
        return None
    figure, plots = charts(
        len(counts), len(AXES), "Accuracy over time, rows and bytes", width=4.4, sharey=True
    )
    for row, count in zip(plots, counts, strict=True):
        lines = {(rule, count): line_of(rule, grid) for rule in leaders(outcomes, grid, count)}
        for (rule, workers), style in {**lines, (BASELINE, 1): ALONE}.items():
            runs = found.get((rule, workers, *CONDITIONS[0]), [])
            points = mean_curve(runs) if runs else []
            for axes, (_, column) in zip(row, AXES, strict=True):
                axes.plot([p[column] for p in points], [100 * p[3] for p in points], **style)
        for axes, (name, _) in zip(row, AXES, strict=True):
            axes.set(xlabel=name, xscale="log", title=f"N = {count}")
        row[0].set(ylabel="test accuracy [%]", ylim=(70, 99))
        legend(row[0])
    return figure


def mean_curve(runs: list[Outcome]) -> list[tuple[float, ...]]:
    """Return the mean of curves, point by point; the first is before any training."""
    return [
        tuple(statistics.mean(values) for values in zip(*points, strict=True))
        for points in zip(
            *([(run.seconds(time), *others) for time, *others in run.curve[1:]] for run in runs), strict=False
        )
    ]


def time_to(runs: list[Outcome], threshold: float) -> float | None:
    """Return the mean seconds to an accuracy; `None` if a run does not reach it."""
    times = [
        next((run.seconds(point[0]) for point in run.curve if point[3] >= threshold), None) for run in runs
    ]
    reached = [time for time in times if time is not None]
    return statistics.mean(reached) if reached and len(reached) == len(times) else None


def speed(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return how much sooner N workers reach an accuracy than one, beside N times as fast."""
    found = means(outcomes, grid)
    alone = found.get((BASELINE, 1, *CONDITIONS[0]), [])
    threshold = next((each for each in THRESHOLDS if alone and time_to(alone, each) is not None), None)
    if threshold is None:
        return None
    base = time_to(alone, threshold) or math.nan
    figure, [[axes]] = charts(1, 1, f"Time to {100 * threshold:g} % over one worker's", width=6, height=4.2)
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
        axes.plot(*zip(*sorted(lines[rule]), strict=True), marker="o", markersize=3.5, **line_of(rule, grid))
    counts = sorted({1, *grid.workers})
    axes.plot(counts, counts, **ALONE | {"label": "ideal"})
    axes.set(xscale="log", yscale="log", xlabel="workers", ylabel="times sooner")
    axes.set_xticks(counts, [str(count) for count in counts], minor=False)
    axes.set_yticks(counts, [str(count) for count in counts], minor=False)
    axes.minorticks_off()
    legend(axes)
    return figure


def rates(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return the best accuracy over the learning rate, a plot for each tuned number of workers."""
    best: dict[tuple[int, str], dict[float, float]] = defaultdict(dict)
    for outcome in outcomes:
        case: Case = outcome.case
        if case.samples == grid.tuning_samples and case.num_workers > 1:
            line = best[case.num_workers, case.rule]
            line[case.rate] = max(outcome.accuracy, line.get(case.rate, 0.0))
    counts = sorted({count for count, _ in best})
    if not counts:
        return None
    figure, [row] = charts(
        1, len(counts), "Accuracy over the learning rate", width=4.4, height=3.6, sharey=True
    )
    for axes, count in zip(row, counts, strict=True):
        found = {rule: line for (other, rule), line in best.items() if other == count}
        for rule in sorted(found, key=lambda rule: -max(found[rule].values()))[:SHOWN]:
            places, hits = zip(*sorted(found[rule].items()), strict=True)
            axes.plot(places, [100 * hit for hit in hits], marker="o", markersize=3.5, **line_of(rule, grid))
        axes.set(xscale="log", xlabel="learning rate", title=f"N = {count}")
        legend(axes)
    row[0].set(ylabel="test accuracy [%]")
    return figure


def staleness(outcomes: list[Outcome], grid: Grid) -> Any:
    """Return the staleness of commits on equal and unequal machines."""
    count = max(grid.hard)
    title = f"Staleness of {count} workers, all asynchronous rules"
    figure, [[axes]] = charts(1, 1, title, width=6, height=3.6)
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
            axes.step(sorted(totals), shares, where="mid", label=f"{step_time} machines")
    if not largest:
        return None
    ticks = range(largest + 1)
    axes.set_xticks(list(ticks), [str(2**bits // 2) for bits in ticks])
    axes.set(xlabel="staleness, from", ylabel="commits [%]")
    legend(axes)
    return figure
