"""What the tests of clusters check of a training by train_script.py."""

from __future__ import annotations

import re
from pathlib import Path

TRAIN = Path(__file__).parent / "train_script.py"


def check(output: str, *trainers: str) -> None:
    """All have trained, every window was counted once, and the session lives."""
    for name in trainers:
        found = re.search(rf"{name}: accuracy ([\d.]+)", output)
        assert found is not None, output[-6000:]
        assert float(found[1]) > 0.8, output[-6000:]
        assert f"{name}: every window once True" in output, output[-6000:]
    assert "session lives True" in output, output[-6000:]
