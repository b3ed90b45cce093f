"""Runs Keras's own tests of `fit` with `distkeras.fit`, from the installed wheel, and writes down the score.

python tests/parity/keras_suite.py                  # JAX
python tests/parity/keras_suite.py --all            # JAX, TensorFlow and PyTorch
python tests/parity/keras_suite.py -k early_stopping --backend torch
python tests/parity/keras_suite.py --all --go-on    # after an interruption: without the cases that ran

Each backend runs twice: with Keras's own methods, to know which cases pass with them and call them, and
these with ours in their place (`keras_suite_plugin`). One in which nothing of ours ran, or that was skipped,
counts as failed. The results of each case are added to files in build/keras_suite at once. Without -k the
backends that ran get new records, benchmarks/results/keras_suite_BACKEND.json, and the page is written.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import recording  # noqa: E402

DOCUMENT = ROOT / "docs" / "keras_suite.md"
REPORTS = ROOT / "build" / "keras_suite"
REASONS = HERE / "keras_suite_reasons.json"
BACKENDS = {"jax": 0.90, "tensorflow": 0.85, "torch": 0.85}
"""The share of the cases that must pass on each backend."""
PACKAGES = ("keras", "jax", "tensorflow-cpu", "torch", "pyspark", "numpy")
INI = "[pytest]\nfilterwarnings =\n    ignore\n"
LIMIT_SECONDS = 3600
HEADER = """# Keras's own tests

<!-- Written by `make keras-suite`. -->

This page shows how many of Keras's own tests pass with `distkeras.fit`, and why the others do not. The
Keras wheel includes its tests. `make keras-suite` runs the tests of the callbacks and of the trainer,
unchanged, with one worker on local Spark. `distkeras.fit`, `evaluate` and `predict` replace the methods of
`keras.Model`. The table counts the cases that pass with Keras's own methods and call one of these three. No
call falls back to Keras's own method: each call must have run a Spark job.

"""

FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/\"':]+/)+")
"""Of a machine's paths, which say nothing to a reader elsewhere."""

Case = dict[str, Any]


def files() -> list[str]:
    """Return the files of tests in the installed wheel."""
    import keras

    source = Path(keras.__file__).parent / "src"
    return [
        *map(str, sorted((source / "callbacks").glob("*_test.py"))),
        str(source / "trainers/trainer_test.py"),
    ]


def run(
    backend: str, ours: bool, report: Path, chosen: str = "", cases: list[str] | None = None
) -> dict[str, Case]:
    """Run the tests on `backend`; return the cases by name.

    A process that dies in a case is replaced by another one, which goes on with the next case.

    Args:
        backend: name of Keras's backend.
        ours: with our methods in place of Keras's own.
        report: file of the results, a line each. Cases that are in it do not run again.
        chosen: those to run, as pytest's -k. Default: all.
        cases: names of those to run. Default: all.
    """
    while True:
        before = len(_cases(report))
        ended = _run_once(backend, ours, report, chosen, cases)
        found = _cases(report)
        if ended.returncode >= 0 and found:
            print(f"{backend}, {'ours' if ours else 'own'}: {ended.stdout.splitlines()[-1]}", flush=True)
            return found
        if len(found) == before:
            raise RuntimeError(f"No test ran on {backend}:\n{ended.stdout[-3000:]}")
        print(f"{backend}: {[*found][-1]} has ended the process ({ended.returncode})", flush=True)


def _run_once(
    backend: str, ours: bool, report: Path, chosen: str, cases: list[str] | None
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "keras.ini").write_text(INI)
        command = [sys.executable, "-m", "pytest", "-c", "keras.ini", "--rootdir", name, "-q", "--tb=no"]
        command += ["-p", "no:cacheprovider", "-p", "keras_suite_plugin", *files()]
        command += ["-k", chosen] if chosen else []
        settings = {
            "KERAS_BACKEND": backend,
            "KERAS_SUITE": "distkeras" if ours else "own",
            "KERAS_SUITE_REPORT": str(report),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": "1",  # PyTorch's threads would wait for each other, and for Spark's.
        }
        if cases is not None:
            (folder / "cases").write_text("\n".join(cases))
            settings["KERAS_SUITE_CASES"] = str(folder / "cases")
        return subprocess.run(
            command,
            env=os.environ | settings,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_SECONDS,
        )


def _cases(report: Path) -> dict[str, Case]:
    """Return the last line of each case in the file of a run."""
    lines = report.read_text().splitlines() if report.exists() else []
    return {line["case"]: line for line in map(json.loads, lines)}


def counts(case: Case) -> bool:
    """Whether a case of Keras's own methods counts: it passes with them, and calls one."""
    return case["outcome"] == "passed" and bool(case["calls"])


def judge(own: dict[str, Case], ours: dict[str, Case]) -> list[Case]:
    """Return the cases that pass with Keras's own methods and call one, and what became of each with ours."""
    judged = []
    for name, case in sorted(own.items()):
        if not counts(case):
            continue
        found = ours.get(name, {"outcome": "missing", "calls": {}, "reason": "it did not run"})
        passed = found["outcome"] == "passed" and bool(found["calls"])
        judged.append(
            {
                "case": name,
                "backend": case["backend"],
                "passed": passed,
                "reason": "" if passed else FOLDERS.sub("", found["reason"]),
                "earlier": found.get("earlier", False),
            }
        )
    return judged


def document(judged: list[Case]) -> str:
    """Return docs/keras_suite.md."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in PACKAGES)
    lines = [*HEADER.splitlines(), "| backend | cases | passed | share |", "|---|---|---|---|"]
    for backend in BACKENDS:
        cases = [case for case in judged if case["backend"] == backend]
        if cases:
            passed = sum(case["passed"] for case in cases)
            lines.append(f"| {backend} | {len(cases)} | {passed} | {passed / len(cases):.1%} |")
    for backend in BACKENDS:
        earlier = sum(case["backend"] == backend and case["earlier"] for case in judged)
        if earlier:
            lines += [
                "",
                f"{earlier} of the cases on {backend} were run earlier than the others, with older code.",
            ]
    missing = [backend for backend in BACKENDS if not any(case["backend"] == backend for case in judged)]
    lines += ["", f"Still to be counted: {', '.join(missing)}."] if missing else []
    lines += [
        "",
        f"Versions: {versions}.",
        "",
        "## Cases that fail",
        "",
        "| case | backends | reason |",
        "|---|---|---|",
    ]
    reasons: list[dict[str, str]] = json.loads(REASONS.read_text()) if REASONS.exists() else []
    failed: dict[str, list[Case]] = {}
    for case in judged:
        if not case["passed"]:
            failed.setdefault(case["case"], []).append(case)
    for name, cases in failed.items():
        why = next(
            (each["reason"] for each in reasons if each["case"] in name), shortened(cases[0]["reason"])
        )
        backends = ", ".join(case["backend"] for case in cases)
        lines.append(f"| `{name.partition('::')[2]}` | {backends} | {why.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def shortened(text: str) -> str:
    """Return the beginning and the end of a long text."""
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"


def main() -> int:
    """Run, print, write; return 1 where a backend has less than its share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all backends")
    parser.add_argument(
        "--backend", choices=list(BACKENDS), action="append", help="on this one; default: jax"
    )
    parser.add_argument("-k", default="", help="the cases whose names fit, as pytest's -k")
    parser.add_argument("--go-on", action="store_true", help="keep the results of cases that ran already")
    arguments = parser.parse_args()
    backends = list(BACKENDS) if arguments.all else arguments.backend or ["jax"]
    judged: list[Case] = []
    for backend in backends:
        record = recording.begin(f"keras_suite_{backend}")
        own, ours = (REPORTS / f"{backend}-{name}.jsonl" for name in ("own", "ours"))
        for report in (own, ours):
            _prepare(report, arguments.go_on)
        found = run(backend, False, own, arguments.k)
        counted = [name for name, case in found.items() if counts(case)]
        cases = judge(found, run(backend, True, ours, arguments.k, counted))
        judged += cases
        if not arguments.k:
            record.write({"cases": cases})
    for case in judged:
        if not case["passed"]:
            print(f"FAILS on {case['backend']}: {case['case']}: {case['reason'][:200]}")
    if not arguments.k:
        names = [f"keras_suite_{backend}" for backend in BACKENDS]
        records = [recording.read(name) for name in names if (recording.RESULTS / f"{name}.json").exists()]
        DOCUMENT.write_text(document([case for record in records for case in record["cases"]]))
    short = [backend for backend in backends if not _is_enough(judged, backend)]
    return int(bool(short))


def _prepare(report: Path, go_on: bool) -> None:
    """Empty the file of a run; or take the case out of it in which the run was interrupted."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    kept = [case for case in _cases(report).values() if case["outcome"] != "died"] if go_on else []
    report.write_text("".join(json.dumps(case | {"earlier": True}) + "\n" for case in kept))


def _is_enough(judged: list[Case], backend: str) -> bool:
    """Print the score of a backend; return whether it reaches its share."""
    own = [case for case in judged if case["backend"] == backend]
    passed = sum(case["passed"] for case in own)
    print(f"{backend}: {passed} of {len(own)} cases pass ({passed / max(1, len(own)):.1%})")
    return bool(own) and passed >= BACKENDS[backend] * len(own)


if __name__ == "__main__":
    sys.exit(main())
