"""Runs a suite of tests once for each Keras backend, each in a process of its own."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

HERE = Path(__file__).parent
BACKENDS = ("jax", "tensorflow", "torch")
SUITES = ("model_suite.py", "replica_suite.py")
THREADS = {
    "OMP_NUM_THREADS": "1",
    "NPROC": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def cases(suite: str) -> list[str]:
    """Names of the tests in `suite`, without importing Keras here."""
    tree = ast.parse((HERE / suite).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"]


@functools.cache
def report(backend: str) -> dict[str, str]:
    """Run all suites on `backend`; return each test's failures by its name (empty: passed)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xml"
        if backend != "tensorflow":
            # Keras imports it wherever it is installed, to look at types: seconds in every process.
            (Path(folder) / "tensorflow.py").write_text("raise ImportError('not in this test')")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={path}"]
        run = subprocess.run(
            [*command, *(str(HERE / suite) for suite in SUITES)],
            env=os.environ | THREADS | {"KERAS_BACKEND": backend, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if not path.exists():
            raise RuntimeError(f"no report on {backend}: {run.stdout}\n{run.stderr}")
        results: dict[str, str] = {}
        for case in ElementTree.parse(path).iter("testcase"):
            name = case.attrib["name"].partition("[")[0]
            results[name] = results.get(name, "") + "".join(child.text or child.tag for child in case)
    return results


def check(backend: str, case: str) -> None:
    """Fail with what the test `case` said on `backend`."""
    results = report(backend)
    assert case in results, f"{case} did not run on {backend}: {results}"
    assert not results[case], f"on {backend}:\n{results[case]}"
