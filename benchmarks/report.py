"""Writes benchmarks/README.md from the records in benchmarks/results, and the row of speed in README.md.

python benchmarks/report.py [--check]

The text is in benchmarks/sections: templates (Jinja), one for each section, joined in the order of their
names. A template gets figures by `record("NAME")`, and shows below a table what the record says of its run by
`facts("NAME")`. With `--check` nothing is written; the exit code is 1 where a page differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import recording

BENCHMARKS = recording.ROOT / "benchmarks"
PAGE = BENCHMARKS / "README.md"
README = recording.ROOT / "README.md"
SPEED = re.compile(r"^\| \*\*MNIST, two cores\*\* \|.*\n", re.MULTILINE)
SIDES = (("distkeras",), ("fit",), ("ddp",), (), ("elephas",), ())
"""Columns of the table in README.md, as `train.py` names their trainings; empty: not measured."""

Record = dict[str, Any]


class Records:
    """The records in a folder; each is read once.

    Args:
        folder: has a file NAME.json for each record, or NAME.jsonl with a line for each run.
    """

    def __init__(self, folder: Path = recording.RESULTS) -> None:
        self._folder = folder
        self.read = cache(self._read)

    def names(self) -> list[str]:
        """Return the names of all records."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def has(self, name: str) -> bool:
        """Return whether there is such a record."""
        return (self._folder / f"{name}.json").exists()

    def _read(self, name: str) -> Record:
        return recording.read(name, self._folder)

    def lines(self, name: str) -> list[Record]:
        """Return the lines of a file of runs; the first one has their settings."""
        return [json.loads(line) for line in (self._folder / f"{name}.jsonl").read_text().splitlines()]

    def lacking(self, name: str) -> list[str]:
        """Return which facts the record lacks: those of before records had one form."""
        record = self.read(name)
        return [fact for fact in recording.FACTS if fact not in record]

    def facts(self, name: str) -> str:
        """Return the line below a table: where its figures are from."""
        record, lacking = self.read(name), self.lacking(name)
        told = [f"[{name}.json](results/{name}.json)"]
        if command := record.get("command"):
            told.append(f"`{command}`")
        if commit := record.get("commit"):
            told.append(f"commit {commit[:10]}{' with changes' if record.get('changed') else ''}")
        told += [
            *_machine(record.get("machine")),
            *([record["date"][:16].replace("T", " ")] if "date" in record else []),
        ]
        if "seconds" in record:
            told.append(f"{record['seconds']:,.0f} s")
        load = record.get("load")
        if isinstance(load, dict):
            told.append(f"load {load['before']:g} before and {load['after']:g} after")
        elif load is not None:
            told.append(f"load {load}")
        if lacking == list(recording.FACTS):
            told.append("older than the form of records, without facts of its run")
        elif lacking:
            told.append(f"older than the form of records, without {', '.join(lacking)}")
        return f"Record: {'; '.join(told)}."


def _machine(machine: Any) -> Iterable[str]:
    if isinstance(machine, str):
        yield machine
    elif machine:
        words = [machine["processor"]] if "processor" in machine else []
        words.append(f"{machine.get('cores', machine.get('cpus'))} cores")
        if "memory_gib" in machine:
            words.append(f"{machine['memory_gib']:g} GiB")
        yield ", ".join(words)


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with commas between thousands; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def short(value: float) -> str:
    """Return a number with about two digits."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Return the median, and in brackets the least and the most."""
    values = list(values)
    middle, least, most = (number(f(values), digits) for f in (statistics.median, min, max))
    return f"{middle} ({least} to {most})"


def row(rows: Iterable[Record], **wanted: Any) -> Record:
    """Return the first row whose fields have these values."""
    for each in rows:
        if all(each.get(name) == value for name, value in wanted.items()):
            return each
    raise LookupError(f"Expected a row with {wanted}. Received: a record without one.")


def seconds_to(curve: list[list[float]], perplexity: float) -> float | None:
    """Return the seconds to a perplexity; its logarithm is straight between two evaluations."""
    for before, point in itertools.pairwise(curve):
        if point[3] <= perplexity:
            high, low = math.log(before[3]), math.log(point[3])
            part = (high - math.log(perplexity)) / (high - low) if high > low else 1.0
            return before[0] + part * (point[0] - before[0])
    return None


def mean_or_none(values: Iterable[float | None]) -> float | None:
    """Return the mean; `None` where a value is missing."""
    found = list(values)
    there = [value for value in found if value is not None]
    return statistics.mean(there) if there and len(there) == len(found) else None


@cache
def scripts() -> list[str]:
    """Return the benchmarks that write a record."""
    found = {path.stem for path in BENCHMARKS.glob("*.py") if "recording.begin(" in path.read_text()}
    return sorted(found - {"report", "five_figures"})  # The latter's records have names of their own.


def not_recorded(records: Records) -> list[str]:
    """Return the benchmarks without a record."""
    return [name for name in scripts() if not any(each.startswith(name) for each in records.names())]


@cache
def templates() -> jinja2.Environment:
    """Return the sections, ready to be written with the figures of records."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(BENCHMARKS / "sections"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown.
    )
    environment.filters |= {"number": number, "short": short, "spread": spread}
    environment.filters |= {
        "median": statistics.median,
        "mean": statistics.mean,
        "mean_or_none": mean_or_none,
    }
    environment.filters |= {"seconds_to": seconds_to}
    return environment


def page(records: Records) -> str:
    """Return benchmarks/README.md."""
    shown: set[str] = set()

    def record(name: str) -> Record:
        shown.add(name)
        return records.read(name)

    names = {
        "record": record,
        "unshown": lambda: sorted({*records.names()} - shown),
        "lines": records.lines,
        "has": records.has,
        "facts": records.facts,
        "row": row,
        "seconds_to": seconds_to,
        "older": [name for name in records.names() if records.lacking(name)],
        "not_recorded": not_recorded(records),
    }
    environment = templates()
    sections = [environment.get_template(name).render(names) for name in environment.list_templates(["md"])]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(sections))


def speed(records: Records) -> str:
    """Return the row of the table in README.md: seconds of a warm job, all of one run."""
    medians = records.read("train")["medians"]
    cells = []
    for side in SIDES:
        warm = [found["warm"] for name, found in medians.items() if side and name.split()[0] in side]
        least, most = (f"{end(warm):.1f}" for end in (min, max)) if warm else ("", "")
        cells.append(
            "not measured" if not warm else f"{least} s" if least == most else f"{least} to {most} s"
        )
    return f"| **MNIST, two cores** | {' | '.join(cells)} |\n"


def pages(records: Records) -> dict[Path, str]:
    """Return what each page should be."""
    text, found = SPEED.subn(lambda _: speed(records), README.read_text())
    if found != 1:
        raise ValueError(f"Expected README.md to have one row '**MNIST, two cores**'. Received: {found}.")
    return {PAGE: page(records), README: text}


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    stale = {path: text for path, text in pages(Records()).items() if path.read_text() != text}
    for path, text in stale.items():
        print(f"{path.relative_to(recording.ROOT)} {'differs' if options.check else 'is written'}.")
        if not options.check:
            path.write_text(text)
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
