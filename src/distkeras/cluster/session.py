"""A Spark inside this process, for those who have none yet."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from pyspark.sql.utils import is_remote

from distkeras.cluster.class_archive import class_archive, options_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The JVM's second compiler takes seconds of processor time in the first minute, which the workers on the same
# cores need: it is to compile only what runs ten times as often as by default, as long jobs do all the same.
JAVA_OPTIONS = "-XX:+IgnoreUnrecognizedVMOptions " + " ".join(
    f"-XX:Tier4{name}={count}"
    for name, count in (
        ("InvocationThreshold", 50_000),
        ("MinInvocationThreshold", 6_000),
        ("CompileThreshold", 150_000),
        ("BackEdgeThreshold", 400_000),
    )
)

logger = logging.getLogger(__name__)


def is_local(spark: SparkSession) -> bool:
    """Whether the workers of `spark` run on this machine, in the same file system."""
    return not is_remote() and str(spark.conf.get("spark.master", "local")).split("[")[0] == "local"


def result_limit(spark: SparkSession) -> int:
    """Return how many bytes the results of a job may have together: `spark.driver.maxResultSize`."""
    text = (spark.conf.get("spark.driver.maxResultSize", "1g") or "1g").strip().lower().removesuffix("b")
    digits = text.rstrip("kmgtp")
    unit = text[len(digits) :]
    limit = int(digits) * 1024 ** (" kmgtp".index(unit) if unit else 0)
    return limit or 2**62  # 0 means no limit.


def tries_once(spark: SparkSession) -> bool:
    """Whether Spark gives up on a job with the first task that fails: on the masters local and local[N]."""
    return is_local(spark) and "," not in str(spark.conf.get("spark.master", "local"))


PYTHON = "python3"
"""What Spark starts for Python workers if nobody says otherwise: the first on the PATH."""


def python_of_executors(spark: SparkSession) -> str | None:
    """Return the Python that Spark starts for workers, `None` over Spark Connect, where the server knows.

    Where nobody has chosen one, `spark.pyspark.python` is, which PySpark itself heeds only in `spark-submit`;
    and on this machine the driver's own Python, which need not be the first on the PATH: in an environment
    that is not activated it is not.
    """
    if is_remote():
        return None
    context = spark.sparkContext
    if context.pythonExec == PYTHON and os.environ.get("PYSPARK_PYTHON") != PYTHON:
        own = sys.executable if is_local(spark) else PYTHON
        context.pythonExec = spark.conf.get("spark.pyspark.python", None) or own
    return str(context.pythonExec)


def local_session(cores: int | None = None, *, backend: str | None = None, **settings: str) -> SparkSession:
    """Return the active Spark session, or a new local one.

    Args:
        cores: task slots of a new one; default: all cores of this machine.
        backend: have a Python worker for every slot import Keras with this backend in the background, while
            the caller reads data and builds a model; each takes some 300 MB. Default: when training starts.
        **settings: further Spark settings of a new one, with `_` for `.` in their names.
    """
    # Else Spark would start the first python3 on the PATH, which need not be this environment's.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master(f"local[{cores or '*'}]")
        .appName("distkeras")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.log.level", "ERROR")
        # Not extraJavaOptions: those are the user's, in spark-defaults.conf, and come after these.
        .config("spark.driver.defaultJavaOptions", f"{JAVA_OPTIONS} {options_of(class_archive())}".strip())
    )
    for name, value in settings.items():
        builder = builder.config(name.replace("_", "."), value)
    session = builder.getOrCreate()
    if backend is not None:
        threading.Thread(target=_warm, args=(session, backend), daemon=True).start()
    return session


def _warm(session: SparkSession, backend: str) -> None:
    from distkeras.cluster.probe import check_executors
    from distkeras.cluster.slots import count_slots

    threads = int(session.conf.get("spark.task.cpus", "1") or 1)
    try:
        check_executors(session, backend, threads, count_slots(session) or 1)
    except Exception as error:
        # Training asks again, and raises: here nobody would see it.
        logger.info("The Python workers could not be made ready ahead: %s", error)
