"""Spark's daemon of Python workers, with Keras imported: those that it forks start to train at once.

It is the value of two settings of Spark, for a worker that replaces one that was killed:

    spark.python.daemon.module          distkeras.worker.daemon
    spark.executorEnv.KERAS_BACKEND     jax

Without the second it is Spark's own daemon.
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
"""What every worker imports, which takes as long as all that it does before its first minibatch."""
HARMLESS = ("jemalloc_bg_thd",)
"""Threads that pyarrow starts at its import: jemalloc lets go of its locks when the process forks."""
PLAIN = "pyspark.daemon"


def import_all(backend: str, threads: int) -> None:
    """Import what workers need, but start no backend.

    Args:
        backend: of Keras.
        threads: cores of each worker.

    Raises:
        RuntimeError: a module has started a thread at its import: a process that is forked then may find a
            lock that nobody opens any more.
    """
    import_ahead(backend, threads)
    for name in MODULES:
        importlib.import_module(name)
    others = [name for name in threads_of_process() if name not in HARMLESS]
    if others:
        raise RuntimeError(f"Expected no threads after the imports. Received: {', '.join(others)}")


def threads_of_process() -> list[str]:
    """Return the names of the threads of this process but the first, as the system has them."""
    own = str(os.getpid())
    tasks = Path("/proc/self/task")
    return [(task / "comm").read_text().strip() for task in tasks.iterdir() if task.name != own]


def _import_or_say_why(backend: str) -> bool:
    try:
        import_all(backend, int(os.environ.get("OMP_NUM_THREADS", "1")))
    except Exception:
        # What is missing is told by the workers, and by a check before them, as without this module.
        traceback.print_exc()
        return False
    return True


def _be_the_plain_one() -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", PLAIN, *sys.argv[1:]])


def main() -> None:
    """Import, then fork workers until Spark has enough of it."""
    backend = os.environ.get("KERAS_BACKEND")
    if backend is None:
        _be_the_plain_one()
    # Spark reads a port from standard output: what a module prints at its import must not go there.
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
