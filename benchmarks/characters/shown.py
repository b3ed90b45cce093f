"""The table and the figure of `language.py`."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from characters.cases import ALONE, METHODS, TOGETHER, Outcome, Plan
from distkeras.plots.style import INK, charts, legend, line_style, save, styled

MACHINES = ("gamma", "heterogeneous")
AXES = (("virtual time [s]", 0), ("tokens", 1), ("bytes of all messages", 2))
WITHOUT_NETWORK: dict[str, dict[str, Any]] = {
    ALONE: {"color": INK, "linestyle": ":", "linewidth": 2.0},
    TOGETHER: {"color": INK, "linestyle": (0, (4, 1.5)), "linewidth": 2.0},
}


def chosen(outcomes: list[Outcome], plan: Plan) -> dict[tuple[str, str], list[Outcome]]:
    """Return the runs at the best rates, by method and machines."""
    found: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    best = plan.best_rates(outcomes)
    for outcome in outcomes:
        if outcome.case.tokens == plan.tokens and outcome.case.rate == best.get(outcome.case.method):
            found[outcome.case.method, outcome.case.machines].append(outcome)
    return found


def time_to(outcome: Outcome, perplexity: float) -> float | None:
    """Return the virtual seconds to a perplexity; its logarithm is straight between two evaluations."""
    before = outcome.curve[0]
    for point in outcome.curve:
        if point[3] <= perplexity:
            high, low = math.log(before[3]), math.log(point[3])
            part = (high - math.log(perplexity)) / (high - low) if high > low else 1.0
            return before[0] + part * (point[0] - before[0])
        before = point
    return None


def table(outcomes: list[Outcome], plan: Plan) -> str:
    """Return a row for each method: its rate, and what it has come to on equal and unequal machines."""
    found = chosen(outcomes, plan)
    rates = plan.best_rates(outcomes)
    level = found_level(found)
    lines = [
        f"{plan.tokens:,} tokens in all; seconds to a perplexity of {level:g}; MB of all messages",
        "",
        "| method | rate | seeds | perplexity | MB | seconds | unequal: perplexity | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in plan.methods:
        cells = [method, f"{rates[method]:g}" if method in rates else "-"]
        equal, unequal = (found.get((method, machines), []) for machines in MACHINES)
        cells += [str(len(equal)), _mean([run.perplexity for run in equal], 2)]
        cells.append(_mean([run.curve[-1][2] / 1e6 for run in equal], 0))
        cells.append(_mean([time_to(run, level) for run in equal], 0))
        cells.append(_mean([run.perplexity for run in unequal], 2))
        cells.append(_mean([time_to(run, level) for run in unequal], 0))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def found_level(found: dict[tuple[str, str], list[Outcome]]) -> float:
    """Return the lowest round perplexity that half of the runs with several workers reach."""
    ends = sorted(
        run.perplexity
        for (method, _), runs in found.items()
        for run in runs
        if METHODS[method].num_workers > 1 and math.isfinite(run.perplexity)
    )
    return math.ceil(ends[len(ends) // 2]) if ends else 10.0


def _mean(values: list[Any], digits: int) -> str:
    """Return the mean; a dash where a value is missing, or there is none."""
    if not values or any(value is None for value in values):
        return "-"
    return f"{statistics.mean(values):,.{digits}f}"


def draw(outcomes: list[Outcome], plan: Plan, path: Path) -> bool:
    """Draw perplexity over time, tokens and bytes; return whether there is something to draw."""
    found = chosen(outcomes, plan)
    rows = [machines for machines in MACHINES if any(key[1] == machines for key in found)]
    if not rows:
        return False
    title = "Perplexity of a transformer on characters, eight simulated workers"
    figure, plots = charts(len(rows), len(AXES), title, width=4.4, height=3.4, sharey=True)
    for row, machines in zip(plots, rows, strict=True):
        for number, method in enumerate(plan.methods):
            runs = found.get((method, machines)) or (
                found.get((method, MACHINES[0]), []) if method in WITHOUT_NETWORK else []
            )
            if runs:
                _lines(row, method, runs[0], WITHOUT_NETWORK.get(method) or line_style(number - 2))
        for axes, (name, _) in zip(row, AXES, strict=True):
            axes.set(xlabel=name, xscale="log", yscale="log")
            axes.set_yticks([], minor=True)
            ticks = [5, 7, 10, 15, 20, 30]
            axes.set_yticks(ticks, [str(tick) for tick in ticks])
            axes.tick_params(axis="x", which="minor", labelbottom=False)
        kind = "equal" if machines == "gamma" else "unequal"
        with styled():
            row[0].set(ylabel="perplexity", title=f"{kind} machines")
    legend(plots[0][2], ncols=1, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    save(figure, path)
    return True


def _lines(row: list[Any], method: str, outcome: Outcome, style: dict[str, Any]) -> None:
    """Draw one run of a method in the plots of a row."""
    for axes, (_, column) in zip(row, AXES, strict=True):
        points = [point for point in outcome.curve[1:] if point[column]]
        places = [point[column] for point in points] if column < 2 or method not in WITHOUT_NETWORK else []
        axes.plot(places, [point[3] for point in points][: len(places)], label=method, **style)
