"""A Spark inside this process, for those who have none yet."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def local_session(cores: int | None = None, **settings: str) -> SparkSession:
    """Return the active Spark session, or a new local one.

    Args:
        cores: task slots of a new one; default: all cores of this machine.
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
    )
    for name, value in settings.items():
        builder = builder.config(name.replace("_", "."), value)
    return builder.getOrCreate()
