"""A pytest plugin for Keras's own tests: `fit`, `evaluate` and `predict` are counted, or replaced by ours.

`KERAS_SUITE=own` counts the calls of Keras's own methods; `KERAS_SUITE=distkeras` puts ours in their place,
with one worker on a local Spark session. There is no way back: an error of ours fails the test.

Each case adds two lines to the file `KERAS_SUITE_REPORT`: one when it begins, with the outcome "died", and
one when it has ended. Cases that are in the file already do not run again, so that another process goes on
where one died. `KERAS_SUITE_CASES` is a file with the names of the cases to run; all run without it.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

OURS = os.environ.get("KERAS_SUITE", "own") == "distkeras"
TRAINERS = {"jax": "JAXTrainer", "tensorflow": "TensorFlowTrainer", "torch": "TorchTrainer"}
METHODS = ("fit", "evaluate", "predict")
BACKEND = keras.backend.backend()
LIMIT_SECONDS = int(os.environ.get("KERAS_SUITE_LIMIT", "300"))

REPORT = Path(os.environ["KERAS_SUITE_REPORT"])

called: dict[str, int] = {}
"""Calls by the test that runs, of the three methods by name."""


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of Keras's tests, and replace the methods of the backend's trainer."""
    for marker in ("requires_trainable_backend", "multi_device"):
        config.addinivalue_line("markers", f"{marker}: of Keras's own tests")
    sys.modules["conftest"] = _conftest()
    trainer = getattr(importlib.import_module(f"keras.src.backend.{BACKEND}.trainer"), TRAINERS[BACKEND])
    for name in METHODS:
        setattr(trainer, name, _counted(name, _ours(name) if OURS else getattr(trainer, name)))


def _conftest() -> types.ModuleType:
    """Return what one of the tests imports from a file that is not in Keras's wheel."""
    module = types.ModuleType("conftest")

    def skip_if_backend(backend: str, reason: str) -> Any:
        return pytest.mark.skipif(backend == BACKEND, reason=reason)

    module.skip_if_backend = skip_if_backend  # type: ignore[attr-defined]
    return module


def _counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def counted(*args: Any, **kwargs: Any) -> Any:
        called[name] = called.get(name, 0) + 1
        return method(*args, **kwargs)

    return counted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the cases that ran already, and those that are not asked for."""
    lines = REPORT.read_text().splitlines() if REPORT.exists() else []
    ran = {json.loads(line)["case"] for line in lines}
    chosen = os.environ.get("KERAS_SUITE_CASES")
    wanted = None if chosen is None else set(Path(chosen).read_text().splitlines())
    items[:] = [
        item for item in items if _name(item) not in ran and (wanted is None or _name(item) in wanted)
    ]


def _name(item: pytest.Item) -> str:
    return f"{item.path.parent.name}/{item.path.name}::{item.nodeid.partition('::')[2]}"


def _write(item: pytest.Item, outcome: str, reason: str, seconds: float) -> None:
    line = {
        "case": _name(item),
        "backend": BACKEND,
        "outcome": outcome,
        "calls": dict(called),
        "reason": " ".join(reason.split())[:2000],
        "seconds": round(seconds, 2),
    }
    with REPORT.open("a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Write down that the case begins: the line stays if the process dies in it."""
    called.clear()
    _write(item, "died", "The process of the tests died in this case", 0.0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[Any]:
    """End a case that hangs: the others are to be counted too."""
    del item

    def end(*ignored: Any) -> None:
        raise TimeoutError(f"The case takes longer than {LIMIT_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _ours(name: str) -> Callable[..., Any]:
    """Return our function as a method; it fails unless Spark has run a job in it."""
    import distkeras

    def method(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = _num_jobs()
        answer = getattr(distkeras, name)(model, *args, num_workers=1, **kwargs)
        if _num_jobs() == before:
            raise AssertionError(f"`distkeras.{name}` has run no Spark job")
        return answer

    return method


def _num_jobs() -> int:
    from distkeras.cluster.session import local_session

    # The JVM lives for minutes: compiling its code well costs more than it saves.
    options = {"spark_driver_extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    spark = local_session(2, spark_sql_shuffle_partitions="2", **options)
    return int(spark.sparkContext._jsc.sc().dagScheduler().numTotalJobs())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Write a line for each case: its outcome, the calls in it, and why it failed."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        reason = ""
        if report.outcome == "failed" and call.excinfo is not None:
            reason = f"{call.excinfo.typename}: {call.excinfo.value}"
        if report.outcome == "skipped":
            reason = str(call.excinfo.value) if call.excinfo is not None else ""
        _write(item, report.outcome, reason, report.duration)
    return report
