"""What `fit` trains, trains here and comes back the same: one test a case, on the backend of the process."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import keras
import pytest
from judge import Verdict, judge
from registry import Case, all_cases

BACKEND = keras.backend.backend()
ALL = os.environ.get("PARITY", "") == "all"
PART, PARTS = map(int, os.environ.get("PARITY_PART", "0/1").split("/"))
CHOSEN = [
    case for case in all_cases() if BACKEND in case.backends and (ALL or BACKEND == "jax" or case.everywhere)
][PART::PARTS]
"""On JAX all, on the others those that depend on the backend most; other processes have the other parts."""


def report(case: Case, verdict: Verdict) -> None:
    """Add a line to the file that `PARITY_REPORT` names."""
    if path := os.environ.get("PARITY_REPORT"):
        with open(path, "a") as file:
            file.write(json.dumps({"case": case.name, "backend": BACKEND, **asdict(verdict)}) + "\n")


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_one_worker_equals_fit(spark: Any, case: Case) -> None:
    del spark  # The active session.
    verdict = judge(case)
    report(case, verdict)
    assert not verdict.faults, verdict
