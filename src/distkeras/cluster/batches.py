"""Let Spark limit Arrow record batches by their bytes, not only by their rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTING = "spark.sql.execution.arrow.maxBytesPerBatch"

BATCH_BYTES = 64 * 2**20
"""A batch ends with the row that reaches this many bytes: Spark's own default in versions that have one."""

UNITS = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@contextlib.contextmanager
def limited_batches(spark: SparkSession) -> Iterator[None]:
    """Inside the block, let new plans send batches of about `BATCH_BYTES`, whatever the session's setting.

    By default a batch has 10,000 rows, which may be many gigabytes of long arrays or large sparse vectors. A
    smaller limit set by the user stays. After the block the session has its own setting again.

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
    """Return the number of bytes of a size in Spark's notation, such as `64m` or `67108864b`."""
    found = re.fullmatch(r"\s*(-?\d+)\s*([kmgt]?)b?\s*", size.lower())
    if found is None:
        raise ValueError(f"Expected a size, such as '64m', in the setting {SETTING!r}. Received: {size!r}")
    number = int(found[1])
    return number * UNITS[found[2]] if number > 0 else 2**63
