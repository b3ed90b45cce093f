"""Check whether the cluster can run the requested number of workers at once."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from pyspark.sql.utils import is_remote

from distkeras.cluster.settings import is_local

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REGISTRATION_SECONDS = 30.0

logger = logging.getLogger(__name__)


class NotEnoughSlots(ValueError):
    """A synchronous algorithm needs all its workers at once, and the cluster has fewer slots."""


def count_slots(spark: SparkSession) -> int | None:
    """Return the number of tasks that the cluster can run at once now; None over Spark Connect."""
    if is_remote():
        return None
    context = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().defaultResourceProfile()
    return int(context.maxNumConcurrentTasks(profile))


def check_slots(spark: SparkSession, num_workers: int, *, barrier: bool) -> None:
    """Reject a barrier stage that could never start; warn about workers that would run one after another.

    Raises:
        NotEnoughSlots: `barrier`, and fewer slots than workers.
    """
    # Executors register one after another: a new session may not have all of them yet.
    deadline = time.monotonic() + REGISTRATION_SECONDS
    while (slots := count_slots(spark)) is not None and slots < num_workers:
        if not barrier or is_local(spark) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if slots is None or slots >= num_workers:
        return
    if barrier:
        raise NotEnoughSlots(
            f"A synchronous algorithm needs {num_workers} task slots at once, one per worker. Received: a "
            f"Spark application with {slots}. Lower `num_workers`, or give it more executor cores."
        )
    logger.warning(
        "%d workers share %d task slots: some start when others have finished. "
        "Lower `num_workers`, or give the application more executor cores.",
        num_workers,
        slots,
    )
