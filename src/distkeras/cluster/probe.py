"""Check whether the executors can train, by short tasks, before any worker starts."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

import distkeras
from distkeras.cluster import executor_side
from distkeras.cluster.executor_facts import ExecutorFacts, facts_of
from distkeras.cluster.settings import is_local, python_of_executors
from distkeras.cluster.shipping import SHIP, may_ship, own_digest, ship
from distkeras.cluster.stage import Stage, row_type, short_tasks
from distkeras.worker.gpus import ALONE, Sharing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ANSWER_SECONDS = 60.0
"""Seconds to wait for the executors' Python; later jobs report its faults, too."""

NEEDED = ("pyarrow", "numpy", "cloudpickle", "msgspec", "keras")
"""What workers import besides distkeras and the backend."""

VERSIONS = ("keras", "pyspark", "pyarrow", "numpy")
"""Packages whose versions are compared, besides the backend."""

_ready: dict[tuple[str, str, bool], int] = {}
_lock = threading.Lock()

logger = logging.getLogger(__name__)


class ExecutorsNotReady(RuntimeError):
    """The executors' Python lacks a package, differs in version from the driver's, or does not exist."""


def preparation(backend: str, threads: int, sharing: Sharing) -> tuple[str | int, ...]:
    """Return the arguments of `executor_side.prepare`, for `ask_ready`."""
    return backend, threads, sharing.gpu, sharing.machine


def check_executors(
    spark: SparkSession,
    backend: str,
    threads: int | None,
    num_workers: int,
    limit: float = 1800.0,
    further: Iterable[str] = (),
    sharing: Sharing = ALONE,
) -> None:
    """Check whether the executors can train, and let their Python workers import Keras ahead.

    It runs one task per worker, all at once, so that workers start to train together rather than each after
    its own imports. It runs once for a Spark application, a backend and a number of workers; a second caller
    waits for the first. If distkeras is missing there, or is of another version, it is sent.

    The tasks have the resources of the application's settings. Spark runs those of a training with resources
    of its own in other Python workers.

    Args:
        spark: the session.
        backend: Keras backend, which is also the name of its package.
        threads: cores of one worker; `None` for workers with resources of their own: nothing is imported.
        num_workers: tasks to start.
        limit: seconds to wait for them.
        further: modules that the user's own code needs.
        sharing: how many workers share a GPU.

    Raises:
        ExecutorsNotReady: a package is missing, or their Python has another version, or does not exist; the
            message names both interpreters. Or they did not answer in time.
    """
    prepare = None if threads is None else preparation(backend, threads, sharing)
    application = spark.conf.get("spark.app.id", "") or ""
    key = (application, " ".join((backend, *sorted(further))), prepare is not None)
    with _lock:
        if _ready.get(key, 0) < num_workers:
            if not ask_ready(spark, backend, num_workers, limit, prepare, further):
                raise ExecutorsNotReady(
                    f"Expected {num_workers} short tasks to run on the executors within "
                    f"{limit:.0f} s. Received: no answer. See the Spark UI for the cause; "
                    "ServerOptions(give_up=...) sets this limit."
                )
            _ready[key] = num_workers


def check_python(spark: SparkSession, backend: str, limit: float | None = None) -> None:
    """Check whether an executor's Python has the required packages, if it is not the driver's Python.

    It runs once for a Spark application and a backend.

    Args:
        spark: the session.
        backend: Keras backend.
        limit: seconds to wait for an executor. Default: if none answers within `ANSWER_SECONDS`, later jobs
            report any fault.

    Raises:
        ExecutorsNotReady: as `check_executors`.
    """
    if _is_own_python(spark):
        return
    key = (spark.conf.get("spark.app.id", "") or "", backend, False)
    with _lock:
        if key not in _ready and (*key[:2], True) not in _ready:
            answered = ask_ready(spark, backend, 1, ANSWER_SECONDS if limit is None else limit)
            if not answered and limit is not None:
                raise ExecutorsNotReady(
                    f"Expected a short task to run on an executor within {limit:.0f} s. Received: no answer. "
                    "Spark has started no executor, or all are busy: see its web page. "
                    "ServerOptions(give_up=...) sets this limit."
                )
            _ready[key] = 0


def ask_ready(
    spark: SparkSession,
    backend: str,
    num_tasks: int,
    limit: float,
    prepare: tuple[str | int, ...] | None = None,
    further: Iterable[str] = (),
) -> list[ExecutorFacts]:
    """Return what `num_tasks` tasks say of executors that can train; send them distkeras where it is needed.

    Args:
        spark: the session.
        backend: Keras backend.
        num_tasks: number of tasks, each in a Python worker.
        limit: seconds.
        prepare: the arguments of `executor_side.prepare`, with which the executors import Keras.
        further: modules that the user's own code needs.

    Returns:
        One record a task; none if they have not answered in time.

    Raises:
        ExecutorsNotReady: as `check_executors`.
        ValueError: `spark.distkeras.ship` is neither true nor false.
    """
    allowed = may_ship(spark)  # A wrong setting is told also where nothing needs to be sent.
    modules = list(dict.fromkeys([*NEEDED, backend, *sorted(further)]))
    asked = (backend, modules, prepare)
    found = ask(spark, *asked, num_tasks=num_tasks, limit=limit)
    _check_modules(found, modules, backend)
    other = None if _is_own_python(spark) else _other(found)
    if other is not None:
        _send(spark, other, allowed)
        found = ask(spark, *asked, num_tasks=num_tasks, limit=limit)
        other = _other(found)
    if other is not None:
        raise ExecutorsNotReady(
            f"Expected the distkeras of the driver on {other.place}, which the driver has sent. Received: "
            f"{_package(other)}. Remove it there, or install distkeras {distkeras.__version__}."
        )
    return found


def ask(
    spark: SparkSession,
    backend: str,
    modules: Sequence[str],
    prepare: tuple[str | int, ...] | None = None,
    *,
    num_tasks: int,
    limit: float,
) -> list[ExecutorFacts]:
    """Return what `num_tasks` tasks say of their executors; an empty list if they do not within `limit`.

    Args:
        spark: the session.
        backend: Keras backend, whose version is asked for.
        modules: modules to look for.
        prepare: as in `ask_ready`; where distkeras is the driver's and nothing is missing.
        num_tasks: number of tasks.
        limit: seconds.

    Raises:
        ExecutorsNotReady: the executors have no Python that this driver can use.
    """
    question: dict[str, Any] = {
        "digest": None if _is_own_python(spark) else own_digest(),
        "modules": modules,
        "versions": [*VERSIONS, backend],
        "prepare": prepare,
    }
    answer = executor_side.ask

    def answered(_: int) -> tuple[str]:
        return (answer(question),)

    what = "checks the executors' Python" if prepare is None else "imports Keras on the executors"
    stage = Stage(short_tasks(spark, answered, row_type(facts=T.StringType()), num_tasks), what)
    try:
        rows = stage.result(min(limit, threading.TIMEOUT_MAX)) or []
    except Exception as error:
        unusable = _unusable(str(error), python_of_executors(spark))
        if unusable is None:
            raise
        raise ExecutorsNotReady(
            f"Expected a Python {_VERSION} on the executors. {_mend(unusable, backend)}"
        ) from error
    return [facts_of(row.facts) for row in rows]


def _is_own_python(spark: SparkSession) -> bool:
    """Whether the executors run the driver's Python: on other machines the same path may be another one."""
    return is_local(spark) and python_of_executors(spark) == sys.executable


def _other(found: list[ExecutorFacts]) -> ExecutorFacts | None:
    return next((facts for facts in found if facts.package[1] != own_digest()), None)


def _check_modules(found: list[ExecutorFacts], modules: list[str], backend: str) -> None:
    for facts in found:
        if facts.missing:
            received = f"{', '.join(facts.missing)} missing in {facts.python} on {facts.host}"
            text = f"Expected the executors' Python to have {', '.join(modules)}. {_mend(received, backend)}"
            if own := sorted({*facts.missing} - {*NEEDED, backend}):
                text += f" For files of your own ({', '.join(own)}): `spark-submit --py-files`."
            raise ExecutorsNotReady(text)


def _send(spark: SparkSession, other: ExecutorFacts, allowed: bool) -> None:
    """Send distkeras to the executors, of which one is `other`.

    Raises:
        ExecutorsNotReady: the application forbids that, or its Python workers have imported another one.
    """
    daemon = str(spark.conf.get("spark.python.daemon.module", "") or "")
    expected = f"Expected distkeras {distkeras.__version__}, with the driver's code, on {other.place}. "
    received = f"Received: {_package(other)}. "
    if not allowed:
        raise ExecutorsNotReady(
            f"{expected}{received}Install it there, or let the driver send its own: {SHIP}=true. "
            f"Received: {SHIP}=false"
        )
    if daemon.startswith("distkeras."):
        raise ExecutorsNotReady(
            f"{expected}{received}The driver cannot send its own to Python workers that have imported "
            "another one before: install it there, or create the session without "
            f"`spark.python.daemon.module`. Received: spark.python.daemon.module={daemon}"
        )
    logger.warning(
        "Sending distkeras %s to the executors: %s has %s.",
        distkeras.__version__,
        other.place,
        _package(other),
    )
    ship(spark)


def _package(facts: ExecutorFacts) -> str:
    version, digest, folder = facts.package
    if not digest:
        return f"no distkeras in {facts.python}"
    same = version == distkeras.__version__
    return f"distkeras {version}{' with different code' if same else ''} in {folder}"


_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _mend(received: str, backend: str) -> str:
    return (
        f"Received there: {received}. The driver runs on {sys.executable} (Python {_VERSION}). Install "
        f"`distkeras[{backend}]` there, or, before you create the session, point PYSPARK_PYTHON or "
        "`spark.pyspark.python` to an environment with this version of Python that has it. To bring an "
        "environment along: pack it (`venv-pack -o env.tar.gz` or `conda pack -o env.tar.gz`), and set "
        "spark.archives=env.tar.gz#environment and PYSPARK_PYTHON=./environment/bin/python; or put it into "
        "the image of the executors."
    )


def _unusable(error: str, python: str | None) -> str | None:
    """Return the fault of the executors' Python as a whole that `error` reports, or None."""
    name = python or "the Python of the Spark Connect server"
    version = re.search(r"different version: (\S+) than that in driver", error)
    if version is not None:
        return f"{name} is of version {version[1]}"
    program = re.search(r'Cannot run program "([^"]*)"', error)
    if program is not None:
        return f"there is no {program[1]}"
    module = re.search(r"No module named '?(pyspark|py4j|cloudpickle|distkeras)", error)
    return None if module is None else f"{module[1]} missing in {name}"
