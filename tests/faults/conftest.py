"""`make soak` runs each fault as often as the environment says."""

from __future__ import annotations

import os

import pytest


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    repetitions = int(os.environ.get("DISTKERAS_SOAK", "1"))
    if repetitions > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(repetitions))
