"""Runs Keras's own tests of `fit` with `distkeras.fit`, from the installed wheel, and writes down the score.

python tests/parity/keras_suite.py                  # JAX
python tests/parity/keras_suite.py --all            # JAX, TensorFlow and PyTorch; writes docs/keras_suite.md
python tests/parity/keras_suite.py -k early_stopping --backend torch

Each backend runs twice: with Keras's own methods, to know which cases pass with them and call them, and with
ours in their place (`keras_suite_plugin`). The score is of those cases; one in which nothing of ours ran, or
that was skipped, counts as failed.
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
DOCUMENT = ROOT / "docs" / "keras_suite.md"
RESULTS = ROOT / "benchmarks" / "results" / "keras_suite.json"
REASONS = HERE / "keras_suite_reasons.json"
BACKENDS = {"jax": 0.90, "tensorflow": 0.85, "torch": 0.85}
"""The share of the cases that must pass on each backend."""
PACKAGES = ("keras", "jax", "tensorflow-cpu", "torch", "pyspark", "numpy")
INI = "[pytest]\nfilterwarnings =\n    ignore\n"
LIMIT_SECONDS = 3600
HEADER = """# Keras's own tests

<!-- Written by `make keras-suite`. -->

The wheel of Keras has its tests in it. `make keras-suite` runs those of the callbacks and of the trainer,
unchanged, with `distkeras.fit`, `evaluate` and `predict` in place of the methods of `keras.Model`, with one
worker on local Spark. Counted are the cases that pass with Keras's own methods and call one of them. There is
no way back to Keras's own, and each call must have run a Spark job.

"""

Case = dict[str, Any]


def files() -> list[str]:
    """Return the files of tests in the installed wheel."""
    import keras

    source = Path(keras.__file__).parent / "src"
    return [
        *map(str, sorted((source / "callbacks").glob("*_test.py"))),
        str(source / "trainers/trainer_test.py"),
    ]


def run(backend: str, ours: bool, chosen: str | None) -> dict[str, Case]:
    """Run the tests on `backend`; return the cases by name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "keras.ini").write_text(INI)
        command = [sys.executable, "-m", "pytest", "-c", "keras.ini", "--rootdir", name, "-q", "--tb=no"]
        command += ["-p", "no:cacheprovider", "-p", "keras_suite_plugin", *files()]
        command += ["-k", chosen] if chosen else []
        settings = {
            "KERAS_BACKEND": backend,
            "KERAS_SUITE": "distkeras" if ours else "own",
            "KERAS_SUITE_REPORT": str(folder / "report.jsonl"),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        done = subprocess.run(
            command,
            env=os.environ | settings,
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_SECONDS,
        )
        report = folder / "report.jsonl"
        if not report.exists():
            raise RuntimeError(f"No test ran on {backend}:\n{done.stdout[-3000:]}")
        lines = [json.loads(line) for line in report.read_text().splitlines()]
    print(f"{backend}, {'ours' if ours else 'own'}: {done.stdout.splitlines()[-1]}", flush=True)
    return {line["case"]: line for line in lines}


def judge(own: dict[str, Case], ours: dict[str, Case]) -> list[Case]:
    """Return the cases that pass with Keras's own methods and call one, and what became of each with ours."""
    judged = []
    for name, case in sorted(own.items()):
        if case["outcome"] != "passed" or not case["calls"]:
            continue
        found = ours.get(name, {"outcome": "missing", "calls": {}, "reason": "it did not run"})
        passed = found["outcome"] == "passed" and bool(found["calls"])
        judged.append(
            {
                "case": name,
                "backend": case["backend"],
                "passed": passed,
                "reason": "" if passed else found["reason"],
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
            (each["reason"] for each in reasons if each["case"] in name), _shortened(cases[0]["reason"])
        )
        backends = ", ".join(case["backend"] for case in cases)
        lines.append(f"| `{name.partition('::')[2]}` | {backends} | {why.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _shortened(reason: str) -> str:
    """Return the beginning and the end of a long reason, without this machine's paths."""
    text = re.sub(r'"[^"]*/([^"/]+\.py)"', r"\1", reason)
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"


def main() -> int:
    """Run, print, write; return 1 where a backend has less than its share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all backends; writes the document")
    parser.add_argument(
        "--backend", choices=list(BACKENDS), action="append", help="on this one; default: jax"
    )
    parser.add_argument("-k", help="the cases whose names fit, as pytest's -k")
    arguments = parser.parse_args()
    backends = list(BACKENDS) if arguments.all else arguments.backend or ["jax"]
    judged: list[Case] = []
    short = False
    for backend in backends:
        found = judge(run(backend, False, arguments.k), run(backend, True, arguments.k))
        for case in found:
            if not case["passed"]:
                print(f"FAILS on {backend}: {case['case']}: {case['reason'][:200]}")
        passed = sum(case["passed"] for case in found)
        print(f"{backend}: {passed} of {len(found)} cases pass ({passed / max(1, len(found)):.1%})")
        short |= not found or passed < BACKENDS[backend] * len(found)
        judged += found
    if arguments.all and not arguments.k:
        DOCUMENT.write_text(document(judged))
        RESULTS.write_text(json.dumps(judged, indent=1) + "\n")
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
