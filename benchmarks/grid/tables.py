"""Tables of `convergence.py`, in Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from distkeras.algorithms import REGISTRY
from grid.cases import CONDITIONS, Case, Grid, Outcome


def means(outcomes: Iterable[Outcome], grid: Grid) -> dict[tuple[str, int, str, str], list[Outcome]]:
    """Return the seeds of the chosen points, by rule, workers, machines and data."""
    found: dict[tuple[str, int, str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        case = outcome.case
        if case.samples == grid.samples:
            found[case.rule, case.num_workers, case.step_time, case.partition].append(outcome)
    return found


def accuracy(outcomes: list[Outcome]) -> str:
    """Return the mean accuracy in percent; a dash for no run."""
    return f"{100 * statistics.mean(each.accuracy for each in outcomes):.1f}" if outcomes else "-"


def by_workers(outcomes: list[Outcome], grid: Grid, step_time: str, partition: str) -> str:
    """Return the mean accuracy, a row for each rule; the asynchronous ones first."""
    found = means(outcomes, grid)
    counts = sorted({count for _, count, *conditions in found if tuple(conditions) == (step_time, partition)})
    if not counts:
        return ""
    lines = [
        f"{step_time} machines, shares by {partition}, {grid.samples:,} rows in all, {grid.seeds} seeds",
        "",
        "| rule | " + " | ".join(f"N = {count}" for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    rules = sorted({rule for rule, *_ in found}, key=lambda rule: (REGISTRY[rule].synchronous, rule))
    for rule in rules:
        cells = [accuracy(found.get((rule, count, step_time, partition), [])) for count in counts]
        if set(cells) != {"-"}:
            kind = " (rounds)" if REGISTRY[rule].synchronous else ""
            lines.append(f"| {rule}{kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def points(outcomes: list[Outcome], grid: Grid) -> str:
    """Return the points of the grid that were chosen."""
    best: dict[tuple[str, int], Case] = grid.best_points(outcomes)
    counts = sorted({count for _, count in best})
    lines = [
        "rate, batch, window of the best point",
        "",
        "| rule | " + " | ".join(f"N = {count}" for count in counts) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for rule in sorted({rule for rule, _ in best}):
        cells = [
            "{:g}, {}, {}".format(*best[rule, count].point) if (rule, count) in best else "-"
            for count in counts
        ]
        lines.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def target(outcomes: list[Outcome], grid: Grid) -> str:
    """Return the long runs of the best rules beside one worker."""
    found: dict[tuple[str, int, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        case = outcome.case
        point = case.num_workers, case.rate, case.batch_size
        if case.samples == grid.target_samples and case.window == 1 and point in grid.targets:
            found[case.rule, case.num_workers, case.step_time].append(outcome)
    lines = [
        f"{grid.target_samples:,} rows in all, {grid.seeds} seeds",
        "",
        "| rule | workers | machines | accuracy | lowest | virtual seconds |",
        "|---|---|---|---|---|---|",
    ]
    for (rule, count, step_time), each in sorted(found.items(), key=lambda entry: (entry[0][1], entry[0])):
        lowest = f"{100 * min(outcome.accuracy for outcome in each):.2f}"
        mean = f"{100 * statistics.mean(outcome.accuracy for outcome in each):.2f}"
        seconds = statistics.mean(outcome.curve[-1][0] for outcome in each)
        lines.append(f"| {rule} | {count} | {step_time} | {mean} | {lowest} | {seconds:,.0f} |")
    return "\n".join(lines)


def all_tables(outcomes: list[Outcome], grid: Grid) -> str:
    """Return every table."""
    parts = [by_workers(outcomes, grid, *conditions) for conditions in CONDITIONS]
    return "\n\n".join(filter(None, [*parts, points(outcomes, grid), target(outcomes, grid)]))
