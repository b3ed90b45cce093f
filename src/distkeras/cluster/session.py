"""Start Spark inside this process, for users without a session."""

from __future__ import annotations

import logging
import os
import sys
import threading

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from distkeras.cluster.probe import check_executors
from distkeras.cluster.resources import sharing_of
from distkeras.cluster.slots import count_slots
from distkeras.jvm import java_options

logger = logging.getLogger(__name__)


def present_session() -> SparkSession | None:
    """Return the Spark session that there is, the active one of this thread or another; `None` for none."""
    active: SparkSession | None = SparkSession.getActiveSession()
    if active is not None:
        return active
    if is_remote():
        from pyspark.sql.connect.session import SparkSession as RemoteSession

        found: SparkSession | None = RemoteSession._get_default_session()
        return found
    session: SparkSession | None = SparkSession._instantiatedSession
    return None if session is None or session.sparkContext._jsc is None else session


def local_session(cores: int | None = None, *, backend: str | None = None, **settings: str) -> SparkSession:
    """Return the Spark session that there is, or a new local one.

    A session that there is keeps its settings.

    Args:
        cores: task slots of a new session; default: all cores of this machine.
        backend: let a Python worker for every slot import Keras with this backend in the background, while
            the caller reads data and builds a model; each takes some 300 MB. Default: import when training
            starts.
        **settings: further Spark settings of a new session, with `_` for `.` in their names.
    """
    # Otherwise Spark starts the first python3 on the PATH, which may not be this environment's.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = (
        SparkSession.builder.master(f"local[{cores or '*'}]")
        .appName("distkeras")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.log.level", "ERROR")
        # Not extraJavaOptions: users set those in spark-defaults.conf, and they come after these.
        .config("spark.driver.defaultJavaOptions", java_options())
    )
    for name, value in settings.items():
        builder = builder.config(name.replace("_", "."), value)
    session = present_session() or builder.getOrCreate()
    if backend is not None:
        threading.Thread(target=_import_ahead, args=(session, backend), daemon=True).start()
    return session


def _import_ahead(session: SparkSession, backend: str) -> None:
    threads = int(session.conf.get("spark.task.cpus", "1") or 1)
    try:
        slots = count_slots(session) or 1
        sharing = sharing_of(session, None, slots)
        check_executors(session, backend, threads, slots, sharing=sharing)
    except Exception as error:
        # Training checks again, and raises: an error in this thread would not be seen.
        logger.info("The Python workers could not be started in advance: %s", error)
