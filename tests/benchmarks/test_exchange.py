"""The benchmark of exchanges runs whole, in small: it stands in for a replica and a server of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_exchanges_and_what_overlap_hides_are_measured(tmp_path):
    asked = ["--megabytes", "0.1", "--targets", "tcp", "int8", "--workers", "1", "--rounds", "1", "--overlap"]
    script, record = ROOT / "benchmarks" / "exchange.py", tmp_path / "record.json"
    run = subprocess.run(
        [sys.executable, script, *asked, "--out", record], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(record.read_text())
    assert [row["target"] for row in found["exchanges"]] == ["tcp", "int8"]
    assert all(row["ms"] > 0 for row in found["exchanges"])
    assert [row["megabytes"] for row in found["overlap"]] == [0.1]
