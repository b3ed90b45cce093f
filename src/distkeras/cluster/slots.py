"""Count how many tasks the cluster can run at once, and check whether that is enough for the workers."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)
from pyspark.sql.utils import is_remote

from distkeras.cluster.settings import allocates_dynamically, is_local
from distkeras.cluster.stage import Stage, row_type, short_tasks

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import SparkSession

REGISTRATION_SECONDS = 30.0
"""Seconds for the executors of a new session to register, or for others to leave the slots they use."""

ALLOCATION_SECONDS = 120.0
"""Seconds for executors that dynamic allocation asks for: a machine may have to start first."""

HOLD_SECONDS = 1.0
"""Seconds for which a probing task holds its slot: those beside it have started by then."""

ALLOCATION_HOLD_SECONDS = 5.0
"""The same with dynamic allocation, which withdraws its requests for executors when no tasks wait."""

MORE_EXECUTORS = ", or raise `spark.dynamicAllocation.maxExecutors`"

ANSWER = row_type(executor=T.StringType(), begin=T.DoubleType(), end=T.DoubleType())

logger = logging.getLogger(__name__)


class NotEnoughSlots(ValueError):
    """A synchronous algorithm needs all its workers at once, and the cluster has fewer slots."""


def count_slots(
    spark: SparkSession, wanted: int | None = None, profile: ResourceProfile | None = None
) -> int:
    """Return the number of tasks that the cluster can run at once now.

    Over Spark Connect, which has no such number, short tasks find out how many of them run at once: the
    result is the number of slots that nobody else uses, at most `wanted`. With dynamic allocation such tasks
    let executors come, if there are too few.

    Args:
        spark: the session.
        wanted: the number of slots that is needed; `None` for as many as there are.
        profile: what Spark gives each task; `None` for the application's settings.
    """
    if not is_remote():
        registered = registered_slots(spark, profile)
        # Executors of a profile come for tasks of that profile alone.
        if registered >= (wanted or 1) or profile is not None or not allocates_dynamically(spark):
            return registered
        _probed(spark, wanted or 1)
        return registered_slots(spark)
    if wanted is not None:
        return _probed(spark, wanted)
    tasks = 4
    while (found := _probed(spark, tasks)) >= tasks:
        tasks *= 4
    return found


def registered_slots(spark: SparkSession, profile: ResourceProfile | None = None) -> int:
    """Return the number of tasks that the known executors can run at once. Not over Spark Connect.

    Args:
        spark: the session.
        profile: what Spark gives each task; `None` for the application's settings.
    """
    context = spark.sparkContext._jsc.sc()
    manager = context.resourceProfileManager()
    if profile is None:
        asked = manager.defaultResourceProfile()
    else:
        asked = profile._java_resource_profile
        manager.addResourceProfile(asked)  # Else Spark knows it only with its first stage.
    return int(context.maxNumConcurrentTasks(asked))


def check_slots(
    spark: SparkSession, num_workers: int, *, together: bool, profile: ResourceProfile | None = None
) -> int | None:
    """Refuse workers that must run at once where they cannot; warn where others run one after another.

    Args:
        spark: the session.
        num_workers: number of workers.
        together: whether they must run at once.
        profile: what Spark gives each task; `None` for the application's settings.

    Returns:
        The number of slots; `None` if it is not known: over Spark Connect, or with dynamic allocation, for
        workers that need not run at once.

    Raises:
        NotEnoughSlots: `together`, and fewer slots than workers.
    """
    dynamic = allocates_dynamically(spark)
    if not together:
        if is_remote() or dynamic:
            return None
        slots = registered_slots(spark, profile)
        if slots < num_workers:
            logger.warning(
                "%d workers share %d task slots: some start when others have finished. "
                "Lower `num_workers`, or give the application more executor cores.",
                num_workers,
                slots,
            )
        return slots
    if profile is not None and (is_remote() or dynamic):
        return None  # Only tasks with the profile could tell. A worker that never starts has a deadline.
    slots = wait_for_slots(spark, num_workers, profile)
    if slots < num_workers:
        raise NotEnoughSlots(
            f"A synchronous algorithm needs {num_workers} task slots at once, one per worker. Received: a "
            f"Spark application with {slots}{_how_found(dynamic)}. Lower `num_workers`, or give it more "
            f"executor cores{MORE_EXECUTORS if dynamic else ''}."
        )
    return slots


def wait_for_slots(spark: SparkSession, wanted: int, profile: ResourceProfile | None = None) -> int:
    """Return the number of slots as soon as there are so many as `wanted`, or after a limit.

    Executors register one after another, and with dynamic allocation they come for tasks that wait: so it
    waits for `REGISTRATION_SECONDS`, or `ALLOCATION_SECONDS`; on the master local[N] not at all.
    """
    limit = ALLOCATION_SECONDS if allocates_dynamically(spark) else REGISTRATION_SECONDS
    deadline = time.monotonic() + (0.0 if is_local(spark) else limit)
    while (slots := count_slots(spark, wanted, profile)) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    return slots


def _how_found(dynamic: bool) -> str:
    if dynamic:
        return f" after {ALLOCATION_SECONDS:.0f} s of dynamic allocation"
    return f" that were free at one time within {REGISTRATION_SECONDS:.0f} s" if is_remote() else ""


def _probed(spark: SparkSession, num_tasks: int) -> int:
    """Return how many of `num_tasks` short tasks ran at once; 0 if they did not end in time."""
    dynamic = allocates_dynamically(spark)
    hold = _holder(ALLOCATION_HOLD_SECONDS if dynamic else HOLD_SECONDS)
    stage = Stage(short_tasks(spark, hold, ANSWER, num_tasks), "counts the free task slots")
    rows = stage.result(ALLOCATION_SECONDS if dynamic else REGISTRATION_SECONDS)
    return at_once((row.executor, row.begin, row.end) for row in rows or ())


def at_once(spans: Iterable[tuple[str, float, float]]) -> int:
    """Return how many tasks ran at once: the most on each executor, by its own clock, added up.

    Args:
        spans: the executor, the begin and the end of each task.
    """
    by_executor: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for executor, begin, end in spans:
        # At equal times an end comes first: a slot that one task leaves is taken by the next.
        by_executor[executor] += [(begin, 1), (end, -1)]
    total = 0
    for changes in by_executor.values():
        running = most = 0
        for _, change in sorted(changes):
            running += change
            most = max(most, running)
        total += most
    return total


def _holder(seconds: float) -> Callable[[int], tuple[str, float, float]]:
    # A nested function travels by value, so it runs where this package is not installed.
    def hold(_: int) -> tuple[str, float, float]:
        import os
        import platform
        import time

        begin = time.time()
        time.sleep(seconds)
        # The Python workers of an executor are children of one process.
        return f"{platform.node()} {os.getppid()}", begin, time.time()

    return hold
