"""Runs of a benchmark that can be stopped and started again: each is a line of JSON in a file."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C", bound=Hashable)


def kept_rows(path: Path) -> list[dict[str, Any]]:
    """Return the runs that a file holds. A last line that was cut off counts as not run."""
    if not path.exists():
        return []
    # What follows the last line's end is a line that was cut off, or nothing.
    *whole, _ = path.read_text().split("\n")
    return [row for row in map(json.loads, whole) if "case" in row]


def make_missing(
    cases: Iterable[C],
    done: set[C],
    run: Callable[[C], dict[str, Any]],
    *,
    path: Path,
    facts: dict[str, Any],
    jobs: int,
    deadline: float,
) -> bool:
    """Make the runs that are not `done`, and append each to `path`.

    Args:
        cases: what to run, the most important first.
        done: what `path` holds already.
        run: makes one run and returns its row, with `"case"` in it; a function of a module.
        path: file of the results.
        facts: first line of a new file.
        jobs: processes, one core each.
        deadline: when to begin no more runs, in seconds of the monotonic clock.

    Returns:
        Whether all of them are there.
    """
    missing = [case for case in dict.fromkeys(cases) if case not in done]
    begin_file(path, facts)
    # Not by fork: JAX runs threads.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run, case): case for case in missing}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                row = future.result()
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                result = {key: row[key] for key in row.keys() & {"accuracy", "perplexity"}}
                print(f"[{number}/{len(missing)}] {futures[future]} {result}", flush=True)
                if time.monotonic() > deadline:
                    return number == len(missing)
        finally:
            pool.shutdown(cancel_futures=True)
    return True


def begin_file(path: Path, facts: dict[str, Any]) -> None:
    """Write the facts to a new file; drop a last line that was cut off from one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text(json.dumps(facts) + "\n")
    elif not (text := path.read_text()).endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
