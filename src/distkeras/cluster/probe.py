"""Whether the executors can train at all: the right Python packages, found out before any worker starts."""

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
"""For which the driver waits to hear of the executors' Python, before jobs that will tell, too."""

_ready: dict[tuple[str, str], int] = {}
_lock = threading.Lock()


class ExecutorsNotReady(RuntimeError):
    """The Python of the executors lacks a package, has another version than the driver's, or is not there."""


def check_executors(
    spark: SparkSession, backend: str, threads: int, num_workers: int, limit: float = 1800.0
) -> None:
    """Find out whether the executors can train, and have their Python workers import Keras already.

    One task a worker, all at once: so that workers start to train together, not each when its imports are
    done. Done once for a Spark application, a backend and a number of workers; a second caller waits for the
    first.

    Args:
        spark: the session.
        backend: Keras backend, which is also the name of its package.
        threads: cores of one worker.
        num_workers: tasks to start.
        limit: seconds to wait for them.

    Raises:
        ExecutorsNotReady: a package is missing, or their Python is of another version, or is not there; the
            message names both interpreters. Or they have not answered in time.
    """
    key = (spark.conf.get("spark.app.id", "") or "", backend)
    with _lock:
        if _ready.get(key, 0) < num_workers:
            _import_everywhere(spark, backend, threads, num_workers, limit)
            _ready[key] = num_workers


def check_python(spark: SparkSession, backend: str) -> None:
    """Find out whether the Python of an executor has what it needs, where it is not that of the driver.

    Done once for a Spark application and a backend. Where no executor answers in `ANSWER_SECONDS`, it is left
    to the jobs that come after.

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
            "Received: no answer. Look at the Spark UI for what keeps them from running; "
            "ServerOptions(give_up=...) allows for more time."
        )


def _ask(
    spark: SparkSession, needed: list[str], to_import: tuple[str, int] | None, num_tasks: int, limit: float
) -> bool:
    """Ask the executors for packages; return whether they have answered in `limit` seconds.

    Args:
        spark: the session.
        needed: names of modules; the last is that of the backend.
        to_import: have them import Keras with this backend, for so many cores.
        num_tasks: how many Python workers to ask.
        limit: seconds.

    Raises:
        ExecutorsNotReady: they lack one, or have no Python that this driver can use.
    """
    # The rows are pickled: of all that Spark sends to Python, this alone needs no pyarrow there.
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
        f"`distkeras[{needed[-1]}]` there, or, before the session is made, point PYSPARK_PYTHON or "
        "`spark.pyspark.python` at an environment of this version of Python that has it."
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
    """Return what is wrong with the Python of the executors as a whole, if that is what `error` says."""
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
    # A nested function travels by value: it runs where this package is not installed.
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
