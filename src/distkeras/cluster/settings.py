"""Read from a Spark session its master, its limits and the Python of its executors."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def is_remote() -> bool:
    """Whether this process uses Spark Connect."""
    from pyspark.sql import utils  # Here alone: a server and its watch need no PySpark.

    return bool(utils.is_remote())


def is_local(spark: SparkSession) -> bool:
    """Whether the workers of `spark` run on this machine, in the same file system."""
    return not is_remote() and str(spark.conf.get("spark.master", "local")).split("[")[0] == "local"


def result_limit(spark: SparkSession) -> int:
    """Return the maximum bytes of the results of a job: `spark.driver.maxResultSize`."""
    text = (spark.conf.get("spark.driver.maxResultSize", "1g") or "1g").strip().lower().removesuffix("b")
    digits = text.rstrip("kmgtp")
    unit = text[len(digits) :]
    limit = int(digits) * 1024 ** (" kmgtp".index(unit) if unit else 0)
    return limit or 2**62  # 0 means no limit.


def tries_once(spark: SparkSession) -> bool:
    """Whether Spark ends a job at the first failed task: on the masters local and local[N]."""
    return is_local(spark) and "," not in str(spark.conf.get("spark.master", "local"))


def allocates_dynamically(spark: SparkSession) -> bool:
    """Whether Spark starts executors for tasks that wait, and ends idle ones."""
    if is_local(spark):  # There the setting has no effect.
        return False
    return str(spark.conf.get("spark.dynamicAllocation.enabled", "false")).lower() == "true"


PYTHON = "python3"
"""The Python that Spark starts by default: the first on the PATH."""


def python_of_executors(spark: SparkSession) -> str | None:
    """Return the Python that Spark starts for workers; `None` over Spark Connect: only the server knows it.

    By default this is `spark.pyspark.python`, which PySpark itself only reads in `spark-submit`. Without that
    setting, on this machine, it is the driver's own Python, which may not be the first on the PATH, such as
    in an environment that is not activated.
    """
    if is_remote():
        return None
    context = spark.sparkContext
    if context.pythonExec == PYTHON and os.environ.get("PYSPARK_PYTHON") != PYTHON:
        own = sys.executable if is_local(spark) else PYTHON
        context.pythonExec = spark.conf.get("spark.pyspark.python", None) or own
    return str(context.pythonExec)
