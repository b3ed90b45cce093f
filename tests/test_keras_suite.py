"""The score of Keras's own tests counts what was tried, and nothing that was left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PARITY = Path(__file__).parent / "parity"


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(PARITY))
    import keras_suite

    yield keras_suite
    sys.modules.pop("keras_suite")


def case(outcome, calls=("fit",), reason=""):
    return {"outcome": outcome, "calls": dict.fromkeys(calls, 1), "reason": reason, "backend": "jax"}


def test_a_case_that_is_skipped_or_missing_or_calls_nothing_has_failed(suite):
    own = dict.fromkeys(["passes", "skipped", "missing", "elsewhere", "fails"], case("passed"))
    own |= {"not theirs": case("failed"), "no call": case("passed", ())}
    ours = {
        "passes": case("passed") | {"earlier": True},
        "skipped": case("skipped", reason="no device"),
        "elsewhere": case("passed", ()),
        "fails": case("failed", reason="ValueError: a | b"),
        "not theirs": case("passed"),
    }
    judged = suite.judge(own, ours)
    assert {each["case"]: each["passed"] for each in judged} == {
        "passes": True,
        "skipped": False,
        "missing": False,
        "elsewhere": False,
        "fails": False,
    }
    text = suite.document(judged)
    assert "| jax | 5 | 1 | 20.0% |" in text
    assert "ValueError: a \\| b" in text
    assert "1 of the cases on jax were run earlier" in text
    assert "Still to be counted: tensorflow, torch." in text
    every = [each | {"backend": backend} for each in judged for backend in suite.BACKENDS]
    assert "Still to be counted" not in suite.document(every)


def test_an_interrupted_run_goes_on_with_the_case_that_was_cut(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "REPORTS", tmp_path)
    report = tmp_path / "jax-ours.jsonl"
    lines = [case("died"), case("passed"), case("died")]
    for line, name in zip(lines, ["ran", "ran", "cut"], strict=True):
        line["case"] = name
    report.write_text("".join(suite.json.dumps(line) + "\n" for line in lines))
    suite._prepare(report, go_on=True)
    assert [*suite._cases(report)] == ["ran"]
    assert suite._cases(report)["ran"]["outcome"] == "passed"
    suite._prepare(report, go_on=False)
    assert not suite._cases(report)


def test_a_case_in_which_the_process_dies_is_counted_and_the_others_still_run(suite, tmp_path, monkeypatch):
    report = tmp_path / "report"
    deaths = iter([-11, 0])

    def run_once(*ignored):
        with report.open("a") as file:
            for outcome in ["died"] if not report.stat().st_size else ["died", "passed"]:
                name = "kills" if report.stat().st_size == 0 else "passes"
                file.write(suite.json.dumps(case(outcome) | {"case": name}) + "\n")
                file.flush()
        return suite.subprocess.CompletedProcess([], next(deaths), stdout="1 passed")

    report.touch()
    monkeypatch.setattr(suite, "_run_once", run_once)
    found = suite.run("jax", True, report)
    assert {name: each["outcome"] for name, each in found.items()} == {"kills": "died", "passes": "passed"}


def test_the_files_are_those_of_the_installed_wheel(suite):
    paths = [Path(path) for path in suite.files()]
    assert all(path.exists() and "site-packages" in path.parts for path in paths)
    assert {"early_stopping_test.py", "trainer_test.py"} <= {path.name for path in paths}
