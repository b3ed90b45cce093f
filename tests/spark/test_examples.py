"""The examples run as they stand."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_rule_of_ones_own_runs_in_the_simulator_and_on_spark(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "custom_optimizer.py"],
        cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    first, last = (float(loss) for loss in re.search(r"loss ([\d.]+) -> ([\d.]+)", done.stdout).groups())
    assert last < first / 20
    before, after = (float(a) for a in re.search(r"accuracy ([\d.]+) -> ([\d.]+)", done.stdout).groups())
    assert after > 0.85 > before


def test_the_rule_of_ones_own_has_at_most_twenty_lines():
    tree = ast.parse((EXAMPLES / "custom_optimizer.py").read_text())
    (rule,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert rule.name == "Consensus"
    assert rule.end_lineno - rule.lineno + 2 <= 20  # with its decorator
