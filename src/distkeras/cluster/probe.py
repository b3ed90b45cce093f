"""Whether the executors can train at all: the right Python packages, found out before any worker starts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from distkeras.cluster.collecting import Collecting

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SCHEMA = "python string, missing string"

_ready: dict[tuple[str, str], int] = {}
_lock = threading.Lock()


class ExecutorsNotReady(RuntimeError):
    """The Python of the executors lacks a package that training needs."""


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
        ExecutorsNotReady: a package is missing; the message names it, and which Python lacks it. Or they have
            not answered in time.
    """
    key = (spark.conf.get("spark.app.id", "") or "", backend)
    with _lock:
        if _ready.get(key, 0) < num_workers:
            _import_everywhere(spark, backend, threads, num_workers, limit)
            _ready[key] = num_workers


def _import_everywhere(
    spark: SparkSession, backend: str, threads: int, num_workers: int, limit: float
) -> None:
    needed = ["distkeras", "keras", backend]
    tasks = spark.range(0, num_workers, 1, num_workers)
    collecting = Collecting(tasks.mapInArrow(_importer(needed, backend, threads), SCHEMA))
    collecting.start()
    try:
        ended = collecting.wait(limit)
    finally:
        collecting.cancel()
    if not ended:
        raise ExecutorsNotReady(
            f"Expected {num_workers} short tasks to import Keras on the executors within {limit:.0f} s. "
            "Received: no answer. Look at the Spark UI for what keeps them from running; "
            "ServerOptions(give_up=...) allows for more time."
        )
    if collecting.error is not None:
        raise collecting.error
    for row in collecting.rows:
        if row.missing:
            raise ExecutorsNotReady(
                f"Expected the executors' Python to have {', '.join(needed)}. Received: {row.missing} "
                f"missing in {row.python}. Install `distkeras[{backend}]` there, or, before the session is "
                "made, point PYSPARK_PYTHON or `spark.pyspark.python` at an environment that has it."
            )


def _importer(
    modules: list[str], backend: str, threads: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    # A nested function travels by value: it runs where this package is not installed.
    def import_all(batches: Iterator[Any]) -> Iterator[Any]:
        import importlib.util
        import sys

        import pyarrow

        missing = ", ".join(name for name in modules if importlib.util.find_spec(name) is None)
        if not missing:
            from pyspark import TaskContext

            from distkeras.cluster.stage import gpus_of
            from distkeras.worker.task import prepare_process

            context = TaskContext.get()
            prepare_process(backend, threads, gpus_of(context), context.partitionId())
        for _ in batches:
            yield pyarrow.RecordBatch.from_pydict({"python": [sys.executable], "missing": [missing]})

    return import_all
