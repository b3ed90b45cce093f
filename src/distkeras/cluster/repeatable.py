"""Check whether a plan gives the same rows at every evaluation, as far as Spark knows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.utils import is_remote

OWN_FUNCTION = "distkeras_predict"
"""The UDF of `ModelPredictor`. It is deterministic, but declared otherwise so that Spark runs it once."""

IDS = {"MonotonicallyIncreasingID", "SparkPartitionID", "InputFileName"}
"""Expressions that depend on the location of a row."""

SHUFFLES = {"Repartition", "RepartitionByExpression", "RebalancePartitions", "Join", "Aggregate", "Window"}
"""Plan nodes above which the order of rows may differ each time."""

TIMES = {"CurrentTimestamp", "Now", "LocalTimestamp"}
"""Expressions that have another value in each query. A date has one too, but only at midnight."""


class RowsMayChange(UserWarning):
    """The plan of a DataFrame may give other rows at each evaluation."""


def why_rows_may_change(frame: DataFrame) -> str | None:
    """Return the part of `frame`'s plan that may give other rows or values at the next evaluation, or None.

    A UDF that its author declared nondeterministic is such a part, and so is the time of the query. A sample,
    or a random number with the seed that Spark fixes in the plan, repeats if the rows come in the same order,
    so not above a shuffle. Cached data counts as fixed. Over Spark Connect the plan is only known as text,
    which shows neither whether UDFs are deterministic nor the time.
    """
    if is_remote():
        return _in_text(frame._explain_string())
    plan = frame._jdf.queryExecution().withCachedData()
    causes = _causes(plan)
    if has(frame.sparkSession, plan, "CURRENT_LIKE"):
        causes = itertools.chain(causes, _times(plan))
    return next(causes, None)


def has(spark: SparkSession, plan: Any, *patterns: str) -> bool:
    """Whether `plan` has an expression or a node of one of these patterns of Spark's TreePattern."""
    known = spark._jvm.org.apache.spark.sql.catalyst.trees.TreePattern  # Each name asks the JVM.
    return any(plan.containsPattern(getattr(known, pattern)()) for pattern in patterns)


def _times(plan: Any) -> Iterator[str]:
    """Yield the expressions of a plan that are the time of the query."""
    for expression in each(plan.expressions()):
        yield from _times_in(expression)
    for child in each(plan.children()):
        yield from _times(child)


def _times_in(expression: Any) -> Iterator[str]:
    if expression.getClass().getSimpleName() in TIMES:
        yield f"{expression.prettyName()}()"
    for child in each(expression.children()):
        yield from _times_in(child)


def _causes(plan: Any) -> Iterator[str]:
    random = [*_random(plan)]
    if random and _is_shuffled(plan):
        yield f"{random[0]} above a shuffle"
    if not plan.deterministic():
        for expression in each(plan.expressions()):
            for name in _functions(expression):
                yield f"the UDF {name!r}, which is not deterministic"
    for child in each(plan.children()):
        yield from _causes(child)


def _random(plan: Any) -> Iterator[str]:
    if plan.nodeName() == "Sample":
        yield "a sample (sample or randomSplit)"
    for expression in each(plan.expressions()):
        yield from _random_in(expression)


def _random_in(expression: Any) -> Iterator[str]:
    if expression.deterministic():
        return
    kind = expression.getClass().getSimpleName()
    children = [*each(expression.children())]
    if kind not in IDS and "UDF" not in kind and all(child.deterministic() for child in children):
        yield f"{expression.prettyName()}()"
    for child in children:
        yield from _random_in(child)


def _functions(expression: Any) -> Iterator[str]:
    """Yield the names of the nondeterministic UDFs in an expression."""
    if expression.deterministic():
        return
    kind = expression.getClass().getSimpleName()
    children = [*each(expression.children())]
    if "UDF" in kind and all(child.deterministic() for child in children):
        name = str(expression.name() if kind == "PythonUDF" else expression.prettyName())
        if name != OWN_FUNCTION:
            yield name
    for child in children:
        yield from _functions(child)


def _is_shuffled(plan: Any) -> bool:
    children = [*each(plan.children())]
    return any(child.nodeName() in SHUFFLES or _is_shuffled(child) for child in children)


def _in_text(plan: str) -> str | None:
    found = re.search(r"(?m)\b(rand|randn|uuid)\(|^[^A-Za-z]*(Sample)\b", plan)
    shuffled = found is not None and re.search(r"(?m)^[^A-Za-z]*Exchange\b", plan[found.start() :])
    if found is None or not shuffled:
        return None
    name = "a sample (sample or randomSplit)" if found[2] else f"{found[1]}()"
    return f"{name} above a shuffle"


def each(sequence: Any) -> Iterator[Any]:
    """Yield the elements of a sequence of Scala."""
    iterator = sequence.iterator()
    while iterator.hasNext():
        yield iterator.next()
