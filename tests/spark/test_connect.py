"""Spark Connect: a client without a JVM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from starting import without_tensorflow

SCRIPT = Path(__file__).parent / "connect_script.py"


def test_a_pipeline_trains_predicts_and_is_saved_on_spark_connect(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path],
        cwd=tmp_path,
        env=os.environ | without_tensorflow(hidden),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "same True" in done.stdout
    assert "tagged True set()" in done.stdout
    assert "row True True" in done.stdout
    assert "evaluated True" in done.stdout
    assert "refused True" in done.stdout
    fitted, held = re.search(r"accuracy ([\d.]+) ([\d.]+)", done.stdout).groups()
    assert min(float(fitted), float(held)) > 0.8
