"""Whether a plan gives the same rows whenever it is evaluated, as far as Spark knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql.utils import is_remote

OWN_FUNCTION = "distkeras_predict"
"""The UDF of `ModelPredictor`, which is deterministic: Spark is told otherwise, so that it runs once."""

IDS = {"MonotonicallyIncreasingID", "SparkPartitionID", "InputFileName"}
"""Expressions that follow from where a row lies."""

SHUFFLES = {"Repartition", "RepartitionByExpression", "RebalancePartitions", "Join", "Aggregate", "Window"}
"""Nodes of a plan above which rows may come in another order each time."""


class RowsMayChange(UserWarning):
    """The plan of a DataFrame may give other rows each time it is evaluated."""


def why_rows_may_change(frame: DataFrame) -> str | None:
    """Return what in the plan of `frame` may give other rows, or other values, at the next evaluation.

    A UDF that its author declared not deterministic may. A sample, or a random number with the seed that
    Spark fixes in the plan, is the same again on rows that come in the same order: not so above a shuffle.
    What is cached counts as fixed. Over Spark Connect the plan is known as text alone, in which UDFs do not
    say whether they are deterministic.
    """
    if is_remote():
        return _in_text(frame._explain_string())
    plan = frame._jdf.queryExecution().withCachedData()
    return next(_causes(plan), None)


def _causes(plan: Any) -> Iterator[str]:
    random = [*_random(plan)]
    if random and _is_shuffled(plan):
        yield f"{random[0]} above a shuffle"
    if not plan.deterministic():
        for expression in _each(plan.expressions()):
            for name in _functions(expression):
                yield f"the UDF {name!r}, which is not deterministic"
    for child in _each(plan.children()):
        yield from _causes(child)


def _random(plan: Any) -> Iterator[str]:
    if plan.nodeName() == "Sample":
        yield "a sample (sample or randomSplit)"
    for expression in _each(plan.expressions()):
        yield from _random_in(expression)


def _random_in(expression: Any) -> Iterator[str]:
    if expression.deterministic():
        return
    kind = expression.getClass().getSimpleName()
    children = [*_each(expression.children())]
    if kind not in IDS and "UDF" not in kind and all(child.deterministic() for child in children):
        yield f"{expression.prettyName()}()"
    for child in children:
        yield from _random_in(child)


def _functions(expression: Any) -> Iterator[str]:
    """Yield the names of the UDFs in an expression that are not deterministic."""
    if expression.deterministic():
        return
    kind = expression.getClass().getSimpleName()
    children = [*_each(expression.children())]
    if "UDF" in kind and all(child.deterministic() for child in children):
        name = str(expression.name() if kind == "PythonUDF" else expression.prettyName())
        if name != OWN_FUNCTION:
            yield name
    for child in children:
        yield from _functions(child)


def _is_shuffled(plan: Any) -> bool:
    children = [*_each(plan.children())]
    return any(child.nodeName() in SHUFFLES or _is_shuffled(child) for child in children)


def _in_text(plan: str) -> str | None:
    found = re.search(r"(?m)\b(rand|randn|uuid)\(|^[^A-Za-z]*(Sample)\b", plan)
    shuffled = found is not None and re.search(r"(?m)^[^A-Za-z]*Exchange\b", plan[found.start() :])
    if found is None or not shuffled:
        return None
    name = "a sample (sample or randomSplit)" if found[2] else f"{found[1]}()"
    return f"{name} above a shuffle"


def _each(sequence: Any) -> Iterator[Any]:
    iterator = sequence.iterator()
    while iterator.hasNext():
        yield iterator.next()
