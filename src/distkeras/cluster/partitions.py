"""Make one partition per worker, even to within a minibatch, in an order that a second evaluation repeats."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812
from pyspark.sql.utils import is_remote

from distkeras.cluster.description import described

LOGGER = logging.getLogger("distkeras.cluster")

_ROW, _WORKER, _TIMES = "__distkeras_row", "__distkeras_worker", "__distkeras_times"
FLAG = "__distkeras_validation"
"""Name of the column that tells validation rows from training rows."""


def coalesce(frame: DataFrame, num_workers: int) -> DataFrame:
    """Return `frame` in at most `num_workers` partitions, which are the same at every evaluation.

    Partitions are joined if that takes no shuffle. If Spark may change their number each time (for example
    after a join), they are repartitioned once.
    """
    if num_workers > 1 and _replanned(frame):
        LOGGER.info("Spark may replan the partitions: repartitioning to %d", num_workers)
        frame = frame.repartition(num_workers)
    return frame.coalesce(num_workers)


def is_even(counts: dict[int, int], num_workers: int, batch_size: int) -> bool:
    """Whether the partitions from `coalesce` may go to the workers unchanged.

    Args:
        counts: rows of each nonempty partition.
        num_workers: required number of partitions.
        batch_size: maximum difference of rows between partitions.
    """
    return len(counts) == num_workers and max(counts.values()) - min(counts.values()) <= batch_size


def repartition(
    frame: DataFrame, counts: dict[int, int], num_workers: int, seed: int | None, barrier: bool = False
) -> tuple[DataFrame, tuple[int, ...]]:
    """Distribute the rows over `num_workers` partitions in turn, and sort each partition.

    Partitions differ by at most one row. Because it is sorted, a partition has the same rows in the same
    order for a task that replaces a lost one, whatever the order in which shuffle blocks arrive.

    Args:
        frame: from `coalesce`.
        counts: rows of each of its partitions.
        num_workers: number of partitions.
        seed: rotate each round at random, and order a worker's rows at random; `None` to distribute in turn
            and keep the order.
        barrier: shuffle even into a single partition.

    Returns:
        The distributed rows, and the number of rows of each worker.
    """
    num_rows = sum(counts.values())
    offsets = [0, *itertools.accumulate(counts.get(index, 0) for index in range(max(counts) + 1))]
    row = row_in_partition() + _pick(offsets, F.spark_partition_id())
    order: Column = F.col(_ROW)
    worker = F.pmod(F.col(_ROW), F.lit(num_workers))
    if seed is not None:
        order = F.xxhash64(F.col(_ROW), F.lit(seed))
        turn = F.pmod(F.xxhash64(F.floor(F.col(_ROW) / num_workers), F.lit(seed)), F.lit(num_workers))
        # The last round is not full: it is not rotated, so that each worker's number of rows is known.
        last_round = num_rows - num_rows % num_workers
        worker = F.when(F.col(_ROW) < last_round, F.pmod(worker + turn, F.lit(num_workers))).otherwise(worker)
    dealt = frame.withColumn(_ROW, row)
    if num_workers > 1 or barrier:
        keys = _partition_keys(frame, num_workers)
        key = _pick(keys, worker.cast(T.IntegerType()))
        dealt = dealt.withColumn(_WORKER, key).repartition(num_workers, _WORKER)
    dealt = dealt.sortWithinPartitions(order).drop(_ROW, _WORKER)
    share, rest = divmod(num_rows, num_workers)
    return dealt, tuple(share + (index < rest) for index in range(num_workers))


def copy_to_all(frame: DataFrame, num_workers: int, seed: int | None) -> tuple[DataFrame, tuple[int, ...]]:
    """Give every worker all rows, or a bootstrap sample of them.

    Args:
        frame: one partition.
        num_workers: number of partitions to make.
        seed: repeat each row for each worker a Poisson(1) number of times: a sample with replacement of about
            as many rows, whose number is only known afterwards; `None` for all rows, in order.

    Returns:
        The partitions, the same for a task that replaces a lost one, and the number of rows of each worker.
    """
    every = F.explode(F.sequence(F.lit(0), F.lit(num_workers - 1)))
    copies = frame.withColumn(_ROW, F.monotonically_increasing_id()).withColumn(_WORKER, every)
    if seed is not None:
        chance = F.pmod(F.xxhash64(_ROW, _WORKER, F.lit(seed)), F.lit(10**9)) / 10**9
        below = itertools.accumulate(math.exp(-1) / math.factorial(times) for times in range(10))
        times = sum(((chance >= F.lit(bound)).cast(T.IntegerType()) for bound in below), F.lit(0))
        copies = copies.withColumn(_TIMES, F.explode(F.array_repeat(F.lit(0), times))).drop(_TIMES)
    with described(frame.sparkSession, "counts the rows of each worker"):
        counted = copies.groupBy(_WORKER).count().collect()
    counts = {row[_WORKER]: row["count"] for row in counted}
    keys = _partition_keys(frame, num_workers)
    dealt = copies.withColumn(_WORKER, _pick(keys, F.col(_WORKER))).repartition(num_workers, _WORKER)
    dealt = dealt.sortWithinPartitions(_ROW).drop(_ROW, _WORKER)
    return dealt, tuple(counts.get(worker, 0) for worker in range(num_workers))


def with_validation(
    frame: DataFrame, validation: DataFrame, num_workers: int, *, to_all: bool = False
) -> DataFrame:
    """Put validation rows before the training rows of each worker, under a column that tells them apart.

    The training rows keep their workers and their order; all rows are shuffled by Spark once.

    Args:
        frame: partition i goes to worker i.
        validation: rows of other columns; partition i goes to worker i, and some workers may get none.
        num_workers: number of workers.
        to_all: give all validation rows to every worker.

    Returns:
        The rows of both, where the columns of the other kind are null.
    """
    own = F.spark_partition_id()
    every = F.explode(F.sequence(F.lit(0), F.lit(num_workers - 1)))
    parts = [
        rows.withColumn(FLAG, F.lit(flag))
        .withColumn(_ROW, F.monotonically_increasing_id())
        .withColumn(_WORKER, every if flag and to_all else own)
        for flag, rows in ((True, validation), (False, frame))
    ]
    keys = _partition_keys(frame, num_workers)
    both = parts[0].unionByName(parts[1], allowMissingColumns=True)
    dealt = both.withColumn(_WORKER, _pick(keys, F.col(_WORKER))).repartition(num_workers, _WORKER)
    return dealt.sortWithinPartitions(F.col(FLAG).desc(), _ROW).drop(_ROW, _WORKER)


def row_in_partition() -> Column:
    """Return the number of a row within its partition, from 0: the lower 33 bits of Spark's id."""
    return F.monotonically_increasing_id().bitwiseAND(2**33 - 1)


def _pick(values: list[int], index: Column) -> Column:
    return F.get(F.array(*(F.lit(value).cast(T.LongType()) for value in values)), index)


def _partition_keys(frame: DataFrame, num_partitions: int) -> list[int]:
    """Return, for each partition, a number that Spark's hash partitioning assigns to it."""
    numbers = frame.sparkSession.range(64 * num_partitions)  # One is missing with probability exp(-64).
    with described(frame.sparkSession, "numbers the partitions"):
        rows = numbers.select("id", F.pmod(F.hash("id"), F.lit(num_partitions)).alias("partition")).collect()
    keys = {row["partition"]: row["id"] for row in rows}
    return [keys[index] for index in range(num_partitions)]


def _replanned(frame: DataFrame) -> bool:
    """Whether adaptive execution may choose other partitions at the next evaluation.

    It does not change shuffles to a number of partitions that the user set, nor those below a cache, which
    fixes the partitions that it holds.
    """
    # Not by `explain()`, which prints: concurrent trainings would capture each other's standard output.
    plan = frame._explain_string() if is_remote() else frame._jdf.queryExecution().executedPlan().toString()
    shuffles = re.compile(r"[^A-Za-z]*Exchange (?!.*REPARTITION_BY_NUM)")
    return any(shuffles.match(line) for line in _above_caches(plan.splitlines()))


def _above_caches(plan: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a plan, without what lies below a cached DataFrame: lines that are further right."""
    cache = None
    for line in plan:
        node = line.lstrip(" :+-")
        place = len(line) - len(node)
        if cache is not None and place > cache:
            continue
        cache = place if node.startswith("InMemoryRelation") else None
        yield line
