"""Whether the executors can train at all: the right Python packages, found out before any worker starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

MODULES = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}

_checked: set[tuple[str, str]] = set()


class ExecutorsNotReady(RuntimeError):
    """The Python of the executors lacks a package that training needs."""


def check_executors(spark: SparkSession, backend: str) -> None:
    """Ask a Python worker whether it finds Keras, the backend and this package. Once an application.

    Raises:
        ExecutorsNotReady: it does not; the message names what is missing, and which Python it is.
    """
    key = (spark.conf.get("spark.app.id", "") or "", backend)
    if key in _checked:
        return
    needed = ["distkeras", "keras", *([MODULES[backend]] if backend in MODULES else [])]
    row = spark.range(0, 1, 1, 1).mapInArrow(_finder(needed), "python string, missing string").first()
    if row is None or row.missing:
        missing = "unknown" if row is None else row.missing
        raise ExecutorsNotReady(
            f"Expected the executors' Python to have {', '.join(needed)}. Received: {missing} missing in "
            f"{row.python if row else 'it'}. Install `distkeras[{backend}]` there, or point "
            "`spark.pyspark.python` (or PYSPARK_PYTHON, before the session is made) at an environment "
            "that has it."
        )
    _checked.add(key)


def _finder(modules: list[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    # A nested function travels by value: it runs where this package is not installed.
    def find(batches: Iterator[Any]) -> Iterator[Any]:
        import importlib.util
        import sys

        import pyarrow

        missing = ", ".join(name for name in modules if importlib.util.find_spec(name) is None)
        for _ in batches:
            yield pyarrow.RecordBatch.from_pydict({"python": [sys.executable], "missing": [missing]})

    return find
