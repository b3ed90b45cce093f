"""A standalone cluster: spark-submit in client mode."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "train_script.py"


def check(output: str) -> None:
    """The script has trained, and every window was counted once."""
    assert "every window once True" in output
    assert float(output.partition("accuracy ")[2].split()[0]) > 0.9


@pytest.mark.parametrize("trainer", ["DOWNPOUR", "LocalSGD"])
def test_trains_by_spark_submit_in_client_mode(standalone, submit, trainer):
    check(submit(SCRIPT, "--trainer", trainer, to=standalone))
