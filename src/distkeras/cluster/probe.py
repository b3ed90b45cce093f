"""Whether the executors can train at all: the right Python packages, found out before any worker starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

SCHEMA = "python string, missing string"

_ready: set[tuple[str, str, int]] = set()


class ExecutorsNotReady(RuntimeError):
    """The Python of the executors lacks a package that training needs."""


def check_executors(spark: SparkSession, backend: str, threads: int, num_workers: int) -> None:
    """Find out whether the executors can train, and have their Python workers import Keras already.

    One task a worker, all at once: so that workers start to train together, not each when its imports are
    done. Done once for a Spark application, a backend and a number of workers.

    Args:
        spark: the session.
        backend: Keras backend, which is also the name of its package.
        threads: cores of one worker.
        num_workers: tasks to start.

    Raises:
        ExecutorsNotReady: a package is missing; the message names it, and which Python lacks it.
    """
    key = (spark.conf.get("spark.app.id", "") or "", backend, num_workers)
    if key in _ready:
        return
    needed = ["distkeras", "keras", backend]
    tasks = spark.range(0, num_workers, 1, num_workers)
    for row in tasks.mapInArrow(_importer(needed, backend, threads), SCHEMA).collect():
        if row.missing:
            raise ExecutorsNotReady(
                f"Expected the executors' Python to have {', '.join(needed)}. Received: {row.missing} "
                f"missing in {row.python}. Install `distkeras[{backend}]` there, or, before the session is "
                "made, point PYSPARK_PYTHON or `spark.pyspark.python` at an environment that has it."
            )
    _ready.add(key)


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
            from distkeras.worker.task import prepare_process

            prepare_process(backend, threads)
        for _ in batches:
            yield pyarrow.RecordBatch.from_pydict({"python": [sys.executable], "missing": [missing]})

    return import_all
