"""`distkeras runs`: what is in run directories, in a table."""

from __future__ import annotations

import time
from typing import Any

import click

from distkeras.command.answers import FAILED, Answer, answers, table


@click.group()
def runs() -> None:
    """List, show and compare runs."""


@runs.command("list")
@click.argument("addresses", nargs=-1, required=True)
@answers
def list_runs(addresses: tuple[str, ...]) -> Answer:
    """List the runs at ADDRESSES: runs, or folders of runs, on any filesystem."""
    from distkeras.monitor.dashboard.catalogue import Catalogue

    found = Catalogue(addresses).runs()
    rows = [_row(run) for run in found["runs"]]
    troubles = [f"{each['address']}: {each['trouble']}" for each in found["searched"] if each["trouble"]]
    for trouble in troubles:
        click.echo(trouble, err=True)
    return Answer(found, table(rows), FAILED if troubles and not rows else 0)


def _row(run: dict[str, Any]) -> dict[str, Any]:
    began = run.get("began")
    best = run.get("best") or {}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in best.items() if isinstance(value, int | float))
    return {
        "run": run["id"],
        "status": run.get("status") or run["error"],
        "rule": run.get("rule"),
        "workers": run.get("workers"),
        "epochs": run.get("done"),
        "began": None if began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(began)),
        "best": shown,
    }


@runs.command("show")
@click.argument("address")
@answers
def show_run(address: str) -> Answer:
    """Show a run: its settings, its epochs, how it ended."""
    from distkeras.runs import load_run

    run = load_run(address)
    records = [{"epoch": record.epoch, **record.logs} for record in run.records()]
    names = dict.fromkeys(name for record in records for name in record)
    document = {
        "address": run.address,
        "status": run.status,
        "settings": dict(run.settings),
        "epochs": records,
        "result": run.result,
        "checkpoints": [entry.file for entry in run.checkpoints().entries],
    }
    reason = "" if run.result is None else f", {run.result.get('reason')}"
    lines = [f"{run.address}: {run.status}{reason}"]
    lines += [
        f"{name}: {value}" for name, value in run.settings.items() if isinstance(value, int | float | str)
    ]
    lines += [table([{name: record.get(name) for name in names} for record in records])]
    return Answer(document, "\n".join(lines))


@runs.command("compare")
@click.argument("addresses", nargs=-1, required=True)
@click.option("--metric", help="Metric to compare. Default: one that all have.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Write a picture to this file.")
@answers
def compare_runs(addresses: tuple[str, ...], metric: str | None, plot: str | None) -> Answer:
    """Compare runs: the best value of each metric, and the epoch of it."""
    from distkeras.runs import load_run

    loaded = [load_run(address) for address in addresses]
    rows = [_compared(run, metric) for run in loaded]
    names = dict.fromkeys(name for row in rows for name in row)
    if metric is not None and metric not in names:
        raise click.UsageError(f"Expected a metric of these runs. Received: {metric}; they have none of it")
    if plot is not None:
        from distkeras.plots import compare

        compare(list(addresses), metric).savefig(plot)
    return Answer(
        {"runs": rows, "plot": plot}, table([{name: row.get(name) for name in names} for row in rows])
    )


def _compared(run: Any, metric: str | None) -> dict[str, Any]:
    """Return a run's best values; more is better where the metric's name does not say loss or error."""
    from distkeras.runs.direction import known_mode

    row: dict[str, Any] = {"run": run.address, "status": run.status, "epochs": len(run.records())}
    for name, values in run.history.items():
        numbers = [value for value in values if value is not None]
        if metric in (None, name) and numbers and name not in ("learning_rate", "lr"):
            try:
                mode = known_mode(name, (), f"--metric {name}")
            except ValueError:
                row[name] = numbers[-1]
            else:
                row[name] = max(numbers) if mode == "max" else min(numbers)
    return row
