"""The records of benchmarks: whole, one run a file, and with what is needed to believe them."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import recording

    return recording


def test_a_record_says_what_was_run_where_and_on_what(recording, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [str(BENCHMARKS / "step.py"), "--quick", "/somewhere/else.json"])
    run = recording.begin(str(BENCHMARKS / "step.py"))
    path = run.write({"ratio": 0.9}, tmp_path / "step.json")
    record = json.loads(path.read_text())
    assert record["ratio"] == 0.9
    assert record["benchmark"] == "step"
    assert record["command"] == "python benchmarks/step.py --quick else.json"
    assert {*recording.FACTS} <= record.keys()
    assert record["commit"] is None or re.fullmatch("[0-9a-f]{10,}", record["commit"])
    assert record["machine"]["cores"] >= 1
    assert {"before", "after"} == record["load"].keys()
    assert "keras" in record["versions"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", record["date"])
    assert "/" not in record["machine"]["processor"]


def test_a_later_write_replaces_the_earlier_one_and_never_merges(recording, tmp_path):
    run = recording.begin("train.py")
    path = run.write({"fit": 1}, tmp_path / "train.json")
    run.write({"ours": 2}, path)
    record = json.loads(path.read_text())
    assert "fit" not in record
    assert record["ours"] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["train.json"]


def test_figures_cannot_take_the_name_of_a_fact(recording, tmp_path):
    with pytest.raises(ValueError, match="seconds"):
        recording.begin("train.py").write({"seconds": 3.0}, tmp_path / "train.json")


def test_no_benchmark_keeps_figures_in_another_form():
    """Whoever writes a file of results does it by `recording`; `grid` keeps one line for each of its runs."""
    for path in BENCHMARKS.glob("*.py"):
        if path.name in ("recording.py", "kills.py"):  # kills.py: a message between its processes
            continue
        tree = ast.parse(path.read_text())
        writers = [
            node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "write_text"
            and "dumps" in ast.dump(node)
        ]
        assert not writers, f"{path.name}:{writers}"
