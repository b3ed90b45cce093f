"""Check whether the executors can train: required Python packages, checked before any worker starts."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.settings import python_of_executors
from distkeras.cluster.stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ANSWER = "python string, missing string"

ANSWER_SECONDS = 60.0
"""Seconds to wait for the executors' Python; later jobs report its faults, too."""

_ready: dict[tuple[str, str], int] = {}
_lock = threading.Lock()


class ExecutorsNotReady(RuntimeError):
    """The executors' Python lacks a package, differs in version from the driver's, or does not exist."""


def check_executors(
    spark: SparkSession, backend: str, threads: int, num_workers: int, limit: float = 1800.0
) -> None:
    """Check whether the executors can train, and let their Python workers import Keras ahead.

    It runs one task per worker, all at once, so that workers start to train together rather than each after
    its own imports. It runs once for a Spark application, a backend and a number of workers; a second caller
    waits for the first.

    Args:
        spark: the session.
        backend: Keras backend, which is also the name of its package.
        threads: cores of one worker.
        num_workers: tasks to start.
        limit: seconds to wait for them.

    Raises:
        ExecutorsNotReady: a package is missing, or their Python has another version, or does not exist; the
            message names both interpreters. Or they did not answer in time.
    """
    key = (spark.conf.get("spark.app.id", "") or "", backend)
    with _lock:
        if _ready.get(key, 0) < num_workers:
            _import_everywhere(spark, backend, threads, num_workers, limit)
            _ready[key] = num_workers


def check_python(spark: SparkSession, backend: str) -> None:
    """Check whether an executor's Python has the required packages, if it is not the driver's Python.

    It runs once for a Spark application and a backend. If no executor answers within `ANSWER_SECONDS`, later
    jobs report any fault.
    Args:
        spark: the session.
        backend: Keras backend.

    Raises:
        ExecutorsNotReady: as `check_executors`.
    """
    if python_of_executors(spark) == sys.executable:
        return
    key = (spark.conf.get("spark.app.id", "") or "", backend)
    with _lock:
        if key not in _ready:
            _ask(spark, [*NEEDED, backend], None, 1, ANSWER_SECONDS)
            _ready[key] = 0


NEEDED = ["pyarrow", "distkeras", "keras"]


def _import_everywhere(
    spark: SparkSession, backend: str, threads: int, num_workers: int, limit: float
) -> None:
    python_of_executors(spark)
    if not _ask(spark, [*NEEDED, backend], (backend, threads), num_workers, limit):
        raise ExecutorsNotReady(
            f"Expected {num_workers} short tasks to import Keras on the executors within {limit:.0f} s. "
            "Received: no answer. See the Spark UI for the cause; "
            "ServerOptions(give_up=...) allows for more time."
        )


def _ask(
    spark: SparkSession, needed: list[str], to_import: tuple[str, int] | None, num_tasks: int, limit: float
) -> bool:
    """Check the executors for packages; return whether they have answered within `limit` seconds.

    Args:
        spark: the session.
        needed: names of modules; the last is that of the backend.
        to_import: a backend, and a number of cores, for which the executors import Keras.
        num_tasks: number of Python workers to check.
        limit: seconds.

    Raises:
        ExecutorsNotReady: a package is missing, or they have no Python that this driver can use.
    """
    # Pickled rows: the only form of Spark's data that needs no pyarrow in the executors' Python.
    ask = F.udf(_asker(needed, to_import), ANSWER, useArrow=False).asNondeterministic()
    tasks = spark.range(0, num_tasks, 1, num_tasks)
    stage = Stage(tasks.select(ask("id").alias("answer")).select("answer.*"))
    stage.start()
    try:
        ended = stage.wait(limit)
    finally:
        stage.cancel()
    if not ended:
        return False
    mend = (
        f"Received there: {{}}. The driver runs on {sys.executable} (Python {_VERSION}). Install "
        f"`distkeras[{needed[-1]}]` there, or, before you create the session, point PYSPARK_PYTHON or "
        "`spark.pyspark.python` to an environment with this version of Python that has it."
    )
    if stage.error is not None:
        unusable = _unusable(str(stage.error), python_of_executors(spark))
        if unusable is None:
            raise stage.error
        raise ExecutorsNotReady(
            f"Expected a Python {_VERSION} on the executors. {mend.format(unusable)}"
        ) from stage.error
    for row in stage.rows:
        if row.missing:
            raise ExecutorsNotReady(
                f"Expected the executors' Python to have {', '.join(needed)}. "
                + mend.format(f"{row.missing} missing in {row.python}")
            )
    return True


_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _unusable(error: str, python: str | None) -> str | None:
    """Return the fault of the executors' Python as a whole that `error` reports, or None."""
    name = python or "the Python of the Spark Connect server"
    version = re.search(r"different version: (\S+) than that in driver", error)
    if version is not None:
        return f"{name} is of version {version[1]}"
    program = re.search(r'Cannot run program "([^"]*)"', error)
    if program is not None:
        return f"there is no {program[1]}"
    module = re.search(r"No module named '?(pyspark|py4j|cloudpickle)", error)
    return None if module is None else f"{module[1]} missing in {name}"


def _asker(modules: list[str], to_import: tuple[str, int] | None) -> Callable[[int], tuple[str, str]]:
    # A nested function travels by value, so it runs where this package is not installed.
    def ask(_: int) -> tuple[str, str]:
        import importlib.util
        import sys

        missing = ", ".join(name for name in modules if importlib.util.find_spec(name) is None)
        if not missing and to_import is not None:
            from pyspark import TaskContext

            from distkeras.cluster.worker_stage import gpus_of
            from distkeras.worker.environment import prepare_process

            context = TaskContext.get()
            prepare_process(*to_import, gpus_of(context), context.partitionId())
        return sys.executable, missing

    return ask
