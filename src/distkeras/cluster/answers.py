"""Remember the answers to questions about cached rows, so that a second training need not ask again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql.utils import is_remote

from distkeras.cluster.description import described
from distkeras.cluster.repeatable import each, has

MOST_ANSWERS = 32
"""Number of answers that are remembered; the one that was not used for the longest time is dropped."""

_FIXED = {"LocalRelation", "Range", "OneRowRelation"}
"""Sources of rows that a plan holds itself."""
_CHANGING = ("PYTHON_UDF", "SCALA_UDF", "CURRENT_LIKE")
"""Functions of the user's, which may read what Spark does not know of, and the time of the query."""


@dataclass(frozen=True)
class _Answer:
    plan: Any
    rows: list[Row]


_answers: OrderedDict[tuple[str, frozenset[int], int], _Answer] = OrderedDict()
"""By the application's id, the ids of the cached RDDs and the hash of the plan; the last used at the end."""
_lock = threading.Lock()


def collect(query: DataFrame, what: str, *, repeatable: bool) -> tuple[list[Row], bool]:
    """Collect `query`, or return what the same query returned before, if its rows are cached since then.

    The rows are those of before only if Spark holds every block of every cached DataFrame below the query,
    then and now. Rows that are cached again are other rows, and so are rows of a file.

    Args:
        query: a small result.
        what: what its jobs do, as in `described`.
        repeatable: whether the plan gives the same result each time, as long as its sources do.

    Returns:
        The rows, and whether they are those of an earlier call. Over Spark Connect they never are, because
        its client does not see the plan.
    """
    if is_remote() or not repeatable:
        return _ask(query, what), False
    spark, plan = query.sparkSession, query._jdf.queryExecution().withCachedData()
    blocks = _blocks(spark, plan)
    if blocks:
        key = _key(spark, plan, blocks)
        with _lock:
            known = _answers.pop(key, None)
            if known is not None:
                _answers[key] = known
        if known is not None and known.plan.sameResult(plan):
            return known.rows, True
    rows = _ask(query, what)
    blocks = _blocks(spark, plan)
    if blocks:
        with _lock:
            _answers[_key(spark, plan, blocks)] = _Answer(plan, rows)
            while len(_answers) > MOST_ANSWERS:
                _answers.popitem(last=False)
    return rows, False


def _key(spark: SparkSession, plan: Any, blocks: frozenset[int]) -> tuple[str, frozenset[int], int]:
    return spark.sparkContext.applicationId, blocks, plan.semanticHash()


def _ask(query: DataFrame, what: str) -> list[Row]:
    with described(query.sparkSession, what):
        rows: list[Row] = query.collect()
    return rows


def _blocks(spark: SparkSession, plan: Any) -> frozenset[int]:
    """Return the ids of the cached RDDs that `plan` reads, if its answer stays the same while they do.

    There are none if Spark does not hold every partition of each. This runs no job: it does not touch a cache
    that no job has filled.
    """
    if has(spark, plan, *_CHANGING):
        return frozenset()
    found = set()
    for leaf in each(plan.collectLeaves()):
        kind = leaf.getClass().getSimpleName()
        if kind not in _FIXED:
            if kind != "InMemoryRelation" or not leaf.cacheBuilder().isCachedColumnBuffersLoaded():
                return frozenset()
            found.add(int(leaf.cacheBuilder().cachedColumnBuffers().id()))
    # A cache that was filled once may have lost blocks since then.
    stored = {
        int(info.id())
        for info in spark.sparkContext._jsc.sc().getRDDStorageInfo()
        if info.numCachedPartitions() == info.numPartitions()
    }
    return frozenset(found) if found <= stored else frozenset()
