"""Start Spark inside this process, for users without a session."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession
from pyspark.sql.utils import is_remote

from distkeras.cluster.probe import ANSWER_SECONDS, ask_ready, check_executors
from distkeras.cluster.resources import sharing_of, threads_of
from distkeras.cluster.slots import count_slots
from distkeras.compiled_code import folder_for_compiled_code, keep_compiled_here
from distkeras.jvm import java_options

COMPILED = "spark.executorEnv.JAX_COMPILATION_CACHE_DIR"
"""Names the folder of compiled code to the Python workers."""
IMPORTED_BY_SPARK = ("numpy", "pandas", "pyarrow", "pyspark.testing.utils")
"""What a new session imports while it starts, and Keras in part too. Where two threads import NumPy at once,
it may be loaded twice, and then fails."""
IMPORTED_BY_JOBS = (
    "pyspark.sql.classic.dataframe",
    "pyspark.sql.classic.column",
    "pyspark.sql.pandas.map_ops",
)
"""What the first job of the thread that prepares the workers imports, and the caller's first DataFrame."""

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
        backend: import Keras with this backend ahead: in this process while the JVM starts, unless
            `KERAS_BACKEND` names another one; and once for the Python workers of all slots, in the
            background, while the caller reads data and builds a model. JAX then also keeps what it compiles
            in this process, see docs/backends.md. Default: import when training starts.
        **settings: further Spark settings of a new session, with `_` for `.` in their names.
    """
    # Otherwise Spark starts the first python3 on the PATH, which may not be this environment's.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    session = present_session()
    if session is None:
        session = _new_session(
            cores, backend, {name.replace("_", "."): value for name, value in settings.items()}
        )
    if backend is not None:
        _import_all(IMPORTED_BY_JOBS)
        threading.Thread(
            target=_import_ahead, args=(session, backend), name="distkeras-ahead", daemon=True
        ).start()
    return session


def _new_session(cores: int | None, backend: str | None, given: dict[str, str]) -> SparkSession:
    """Start Spark; the arguments are those of `local_session`, `given` with the names that Spark has."""
    builder = (
        SparkSession.builder.master(f"local[{cores or '*'}]")
        .appName("distkeras")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.log.level", "ERROR")
        # Not extraJavaOptions: users set those in spark-defaults.conf, and they come after these.
        .config("spark.driver.defaultJavaOptions", java_options(given))
    )
    own = _for_workers(backend)
    for name, value in (own | given).items():
        builder = builder.config(name, value)
    with _importing_keras(backend, own.get(COMPILED)):
        session: SparkSession = builder.getOrCreate()
    return session


def _for_workers(backend: str | None) -> dict[str, str]:
    """Return the settings by which the Python workers of a new session start sooner."""
    settings: dict[str, str] = {}
    if backend is not None and os.environ["PYSPARK_PYTHON"] == sys.executable:
        # It imports Keras once, and forks the workers.
        settings["spark.python.daemon.module"] = "distkeras.worker.daemon"
        settings["spark.executorEnv.KERAS_BACKEND"] = backend
    if (backend or _loaded_backend()) == "jax":
        folder = folder_for_compiled_code()
        if folder is not None:
            settings[COMPILED] = str(folder)
    return settings


def _loaded_backend() -> str | None:
    """Return the backend of Keras, if this process has imported it."""
    keras = sys.modules.get("keras")
    return None if keras is None else str(keras.backend.backend())


@contextmanager
def _importing_keras(backend: str | None, compiled: str | None = None) -> Iterator[None]:
    """Import Keras in a thread during the block, which starts the JVM; wait for both at its end.

    Args:
        backend: as in `local_session`.
        compiled: the folder for what JAX compiles in this process.
    """
    if backend is None or "keras" in sys.modules:
        yield
        return
    if os.environ.setdefault("KERAS_BACKEND", backend) != backend:
        yield
        return
    from pyspark import SparkContext  # which the client of Spark Connect alone lacks

    def import_keras() -> None:
        try:
            if compiled is not None:
                keep_compiled_here(compiled)
            importlib.import_module("keras")
        except Exception as error:  # The caller's own import raises it again.
            logger.info("Keras could not be imported in advance: %s", error)

    def begin() -> None:
        if begun.is_set() or threading.get_ident() != caller:
            return
        begun.set()
        try:
            _import_all(IMPORTED_BY_SPARK)
            thread.start()
        except BaseException as error:  # At a fork, Python would print it and go on, even after Ctrl-C.
            stopped.append(error)

    thread = threading.Thread(target=import_keras, name="distkeras-import", daemon=True)
    caller, begun = threading.get_ident(), threading.Event()
    stopped: list[BaseException] = []
    # PySpark forks the JVM's process. A fork in the middle of an import might copy a lock that is held.
    # Imports before it would keep the JVM waiting.
    starts_jvm = SparkContext._gateway is None and "PYSPARK_GATEWAY_PORT" not in os.environ
    if starts_jvm and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_parent=begin)
    else:
        begin()
    try:
        yield
    finally:
        begin()
        if thread.ident is not None:
            thread.join()
    if stopped:
        raise stopped[0]


def _import_all(names: Iterable[str]) -> None:
    """Import those of these modules that there are."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def _import_ahead(session: SparkSession, backend: str) -> None:
    try:
        slots = count_slots(session) or 1
        sharing = sharing_of(session, None, slots)
        # First one task, for which the daemon imports Keras: the other slots are free for the caller's jobs
        # meanwhile. It takes no GPU: the tasks that do must run at the same time, to take different ones.
        ask_ready(session, backend, 1, ANSWER_SECONDS)
        check_executors(session, backend, threads_of(session), slots, sharing=sharing)
    except Exception as error:
        # Training checks again, and raises: an error in this thread would not be seen.
        logger.info("The Python workers could not be started in advance: %s", error)
