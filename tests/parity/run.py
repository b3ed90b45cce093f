"""Runs the suite on every backend, in processes of their own, and prints what came out.

python tests/parity/run.py           # every case on JAX, about a tenth of them on TensorFlow and PyTorch
python tests/parity/run.py --all     # all cases on all backends; writes benchmarks/results/parity.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import recording  # noqa: E402

BACKENDS = ("jax", "tensorflow", "torch")
AT_ONCE = 2
NO_TESTS = 5
"""pytest's exit code where a part has none of the chosen cases."""
PARTS = 2
"""Processes that share the cases of a backend that runs them all."""
COMPARED = ("weights", "predictions", "metrics", "optimizer", "fit again", "statistics at rate 0")


def run(backend: str, part: str, arguments: argparse.Namespace) -> tuple[int, list[dict[str, Any]]]:
    """Run a part of the suite, such as "0/2", on `backend`; return pytest's exit code and the verdicts."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-p", "no:cacheprovider"]
        command += [
            str(HERE / "parity_suite.py"),
            "--durations=5",
            *(["-k", arguments.k] if arguments.k else []),
        ]
        chosen = {
            "KERAS_BACKEND": backend,
            "PARITY": "all" if arguments.all else "",
            "PARITY_PART": part,
            "PARITY_REPORT": str(report),
        }
        done = subprocess.run(
            command,
            env=os.environ | chosen,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        print(f"{backend}, part {part}:\n{done.stdout}", flush=True)
        lines = report.read_text().splitlines() if report.exists() else []
        return done.returncode, [json.loads(line) for line in lines]


def table(verdicts: list[dict[str, Any]], backends: list[str]) -> str:
    """Return the largest difference of each case on each backend, as Markdown."""
    found = {(verdict["case"], verdict["backend"]): verdict for verdict in verdicts}
    rows = [f"| case | {' | '.join(backends)} |", "|---" * (1 + len(backends)) + "|"]
    for case in sorted({case for case, _ in found}):
        cells = [cell(found.get((case, backend))) for backend in backends]
        rows.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(verdict: dict[str, Any] | None) -> str:
    """Return what stands in the table for one verdict: a number, or what is wrong."""
    if verdict is None:
        return ""
    if verdict["faults"]:
        return "FAILS: " + ", ".join(verdict["faults"])
    if verdict["refused"] is not None:
        return "refused"
    furthest = max(verdict["differences"].get(name, 0.0) for name in COMPARED)
    return "0" if furthest == 0 else f"{furthest:.0e}"


def main() -> int:
    """Run, print, write; return 1 where a case failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--all", action="store_true", help="all cases on all backends")
    parser.add_argument(
        "--backend", choices=BACKENDS, action="append", help="on this one; default: all three"
    )
    parser.add_argument("-k", help="the cases whose names fit, as pytest's -k")
    parser.add_argument("--output", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    record = recording.begin("parity")
    backends = arguments.backend or list(BACKENDS)
    parts = {backend: PARTS if arguments.all or backend == "jax" else 1 for backend in backends}
    runs = [(backend, f"{part}/{count}") for backend, count in parts.items() for part in range(count)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = list(pool.map(lambda which: run(*which, arguments), runs))
    verdicts = [verdict for _, found in done for verdict in found]
    print(table(verdicts, backends))
    whole = arguments.all and not arguments.k and len(backends) == len(BACKENDS)
    if whole or arguments.output is not None:
        verdicts.sort(key=lambda verdict: (verdict["case"], verdict["backend"]))
        record.write({"verdicts": verdicts}, arguments.output)
    failed = sum(bool(verdict["faults"]) for verdict in verdicts)
    print(f"{len(verdicts) - failed} passed, {failed} failed")
    return int(any(code not in (0, NO_TESTS) for code, _ in done) or not verdicts)


if __name__ == "__main__":
    sys.exit(main())
