"""Spark's daemon of Python workers with Keras already imported, so that forked workers start at once.

Set two Spark options, so that a replacement for a killed worker starts fast:

    spark.python.daemon.module          distkeras.worker.daemon
    spark.executorEnv.KERAS_BACKEND     jax

Without the second option this module runs Spark's own daemon.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from distkeras.worker.environment import import_ahead

MODULES = (
    "pyarrow",
    "pyspark.worker",
    "distkeras.model.schedule",
    "distkeras.worker.feed",
    "distkeras.worker.cached_replica",
    "distkeras.worker.loop",
    "distkeras.worker.task",
)
"""Modules that every worker imports: this takes as long as all other work before its first minibatch."""
HARMLESS = ("jemalloc_bg_thd",)
"""Threads that pyarrow starts at import: jemalloc releases its locks when the process forks."""
PLAIN = "pyspark.daemon"


def import_all(backend: str, threads: int) -> None:
    """Import the modules that workers need, without starting a backend.

    Args:
        backend: the Keras backend.
        threads: cores of each worker.

    Raises:
        RuntimeError: a module has started a thread at import: a forked process may then inherit a lock that
            is never released.
    """
    import_ahead(backend, threads)
    import numpy as np

    for name in MODULES:
        importlib.import_module(name)
    others = [name for name in threads_of_process() if name not in HARMLESS]
    if others:
        raise RuntimeError(f"Expected no threads after the imports. Received: {', '.join(others)}")
    # Forked processes would all draw the same numbers. Python does this for its own generator.
    os.register_at_fork(after_in_child=np.random.seed)


def threads_of_process() -> list[str]:
    """Return the names that the system has for this process's threads, except the main thread."""
    own = str(os.getpid())
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir() if task.name != own]


def _import_or_say_why(backend: str) -> bool:
    try:
        # NumPy's library of linear algebra starts its threads at import. Those of the backends start in a
        # forked process, which gets as many as its task has cores.
        import_all(backend, 1)
    except Exception:
        # The workers, and a check before them, report the failure, as they do without this module.
        traceback.print_exc()
        return False
    return True


def _be_the_plain_one() -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", PLAIN, *sys.argv[1:]])


def main() -> None:
    """Import the modules, then fork workers until Spark ends the daemon."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend is None:
        _be_the_plain_one()
    # Spark reads a port from standard output: the output of an import must not go there.
    output = os.dup(1)
    os.dup2(2, 1)
    done = _import_or_say_why(backend)
    sys.stdout.flush()
    os.dup2(output, 1)
    os.close(output)
    if not done:
        _be_the_plain_one()
    importlib.import_module(PLAIN).manager()


if __name__ == "__main__":
    main()
