"""Arrow record batches that Spark limits by their bytes, not by their rows alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTING = "spark.sql.execution.arrow.maxBytesPerBatch"

BATCH_BYTES = 64 * 2**20
"""A batch ends with the row that reaches this many bytes: Spark's own default where it has one."""

UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@contextlib.contextmanager
def limited_batches(spark: SparkSession) -> Iterator[None]:
    """Have the plans that are made meanwhile send batches of about `BATCH_BYTES`, whatever the session says.

    By default a batch has 10,000 rows: of long arrays, or large sparse vectors, many gigabytes. A smaller
    limit of the user's stays. Afterwards the session has its own again.

    Args:
        spark: the session.
    """
    own = spark.conf.get(SETTING, None)
    if own is None or _bytes(own) <= BATCH_BYTES:
        yield
        return
    spark.conf.set(SETTING, str(BATCH_BYTES))
    try:
        yield
    finally:
        spark.conf.set(SETTING, own)


def _bytes(size: str) -> int:
    """Return the bytes of a size as Spark writes it, such as `64m` or `67108864b`."""
    found = re.fullmatch(r"\s*(-?\d+)\s*([kmgt]?)b?\s*", size.lower())
    if found is None:
        raise ValueError(f"Expected a size, such as '64m', in the setting {SETTING!r}. Received: {size!r}")
    number = int(found[1])
    return number * UNITS[found[2]] if number > 0 else 2**63
