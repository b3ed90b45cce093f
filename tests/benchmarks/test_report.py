"""benchmarks/README.md is written from the records, and so is the row of speed in README.md."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ON_OTHER_PAGES = re.compile("keras_suite|parity|five-|quick|preprocess|convergence|cold|physicist")
"""Records that this page may leave to others."""
SETTINGS = ("megabytes", "workers")
MEASURED = re.compile(r"^[\d,.]*\d( (%|s|ms|µs|MB))?$")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import report

    return report


@pytest.fixture
def planted(report):
    """Return the records after a change to one."""

    read = report.Records().read

    def plant(name, change):
        records, changed = report.Records(), change(copy.deepcopy(read(name)))
        records.read = lambda asked: changed if asked == name else read(asked)
        return records

    return plant


def other_numbers(figures):
    """Return the same figures, with other numbers."""
    match figures:
        case bool() | str() | None:
            return figures
        case int() | float():
            return figures * 2 + 1
        case list():
            return [other_numbers(each) for each in figures]
    return {name: each if name in SETTINGS else other_numbers(each) for name, each in figures.items()}


def test_pages_are_what_the_records_say(report):
    written = report.pages(report.Records())
    stale = [path.name for path, text in written.items() if path.read_text() != text]
    assert stale == [], "Run `python benchmarks/report.py`; the text is in benchmarks/sections."


def test_other_figures_in_a_record_change_the_page(report, planted):
    names = [name for name in report.Records().names() if not ON_OTHER_PAGES.match(name)]
    assert len(names) > 30
    page = report.page(report.Records())
    assert [name for name in names if report.page(planted(name, other_numbers)) == page] == []


def test_a_faster_job_changes_the_row_in_the_readme(report, planted):
    def faster(record):
        record["medians"]["distkeras"]["warm"] = 1.25
        return record

    records = planted("train", faster)
    assert report.speed(records).split("|")[2].strip() == "1.2 s"
    assert report.pages(records)[report.README] != report.README.read_text()


def test_tools_that_a_run_left_out_are_not_measured(report, planted):
    def without(record):
        medians = {name: found for name, found in record["medians"].items() if not name.startswith("elephas")}
        return record | {"medians": medians}

    cells = [cell.strip() for cell in report.speed(planted("train", without)).split("|")[2:-1]]
    assert cells[3:] == ["not measured"] * 3
    assert "not measured" not in cells[:3]


def test_a_table_says_of_which_run_it_is(report, planted):
    facts = {
        "command": "python benchmarks/frozen.py",
        "commit": "0123456789",
        "changed": True,
        "date": "2026-01-02 03:04 UTC",
        "seconds": 61.2,
        "machine": {"processor": "A processor", "cores": 2, "memory_gib": 23.5},
        "load": {"before": 0.5, "after": 1.25},
        "versions": {},
    }
    records = planted("frozen", lambda record: record | facts)
    assert records.facts("frozen") == (
        "Record: [frozen.json](results/frozen.json); `python benchmarks/frozen.py`; "
        "commit 0123456789 with changes; A processor, 2 cores, 23.5 GiB; 2026-01-02 03:04; 61 s; "
        "load 0.5 before and 1.25 after."
    )
    records = planted("frozen", lambda record: {name: record[name] for name in record if name not in facts})
    assert records.facts("frozen").endswith("older than the form of records, without facts of its run.")


def test_no_template_has_a_measured_figure_in_a_table():
    """The page of what was measured before there were records is the only one."""
    found = {}
    for path in (BENCHMARKS / "sections").glob("*.md"):
        if path.name == "90-before-records.md":
            continue
        text = re.sub(r"{{.*?}}|{%.*?%}", "", path.read_text(), flags=re.DOTALL)
        cells = [
            cell.strip() for line in text.splitlines() if line.startswith("|") for cell in line.split("|")
        ]
        found[path.name] = [cell for cell in cells if MEASURED.match(cell) and cell != "1"]
    assert {name: each for name, each in found.items() if each} == {}
