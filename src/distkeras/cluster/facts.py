"""Check the values of a column: one cheap aggregate in the pass that counts rows, more after a fault."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.description import described
from distkeras.cluster.source import Source
from distkeras.worker.images import HEAD_BYTES


@dataclass(frozen=True)
class Expected:
    """Requirements on the numbers of a column.

    Attributes:
        finite: type in which the numbers must be finite; `None` if NaN and infinity are allowed.
        integers: whether the numbers must have no fraction.
        limits: the least and the greatest allowed number; `None` for no limits.
    """

    finite: str | None = None
    integers: bool = False
    limits: tuple[int, int] | None = None


@dataclass(frozen=True)
class Fault:
    """Rows with a fault in a column.

    Attributes:
        rows: number of such rows.
        first: index of the first such row, from 0, in Spark's order of rows.
    """

    rows: int
    first: int

    def __str__(self) -> str:
        return f"{self.rows} row(s), first in row {self.first}"


@dataclass(frozen=True)
class Facts:
    """Facts about the values of one column.

    Attributes:
        faults: faults by kind: "null", "inner null", "not finite", "fraction", "outside".
        lengths: shortest and longest array, by level of nesting.
        low, high: least and greatest number, if one is outside the limits.
        head: returns the first bytes of a row, for a column of bytes; runs a job of Spark.
    """

    faults: dict[str, Fault]
    lengths: tuple[tuple[int, int], ...] = ()
    low: float | None = None
    high: float | None = None
    head: Callable[[], bytes] = bytes

    def without(self, fault: str) -> Facts:
        """Return the same facts without this kind of fault."""
        return replace(self, faults={name: found for name, found in self.faults.items() if name != fault})


def conditions(source: Source, expected: Expected) -> dict[str, Column]:
    """Return conditions for the faults of a row, by name, as boolean columns; null counts as false."""
    found = {"null": source.column.isNull()}
    array, inner_null = source.array(), []
    for _ in range(1, source.depth):
        inner_null.append(F.exists(array, lambda inner: inner.isNull()))
        array = F.flatten(array)
    if source.depth and not source.binary and not source.vector and source.nullable:
        inner_null.append(_has_null(array, source.leaf))
    if inner_null:
        found["inner null"] = functools.reduce(operator.or_, inner_null)
    if source.binary or isinstance(source.leaf, T.StringType):
        return found
    low, high = _range(source, array)
    if expected.finite is not None and source.floating:
        # Spark orders NaN above all numbers. A finite float64 may be infinite as float32.
        largest = F.lit(float(np.finfo(expected.finite).max)).cast(source.leaf)
        found["not finite"] = (high > largest) | (low < -largest)
    if expected.integers and not source.integral:
        broken = F.exists(array, _is_fractional) if source.depth else _is_fractional(array)
        found["fraction"] = broken
    if expected.limits is not None and not _within(source, expected.limits):
        outside = (low < F.lit(expected.limits[0])) | (high > F.lit(expected.limits[1]))
        found["outside"] = outside & ~found["not finite"] if "not finite" in found else outside
    return found


def questions(source: Source, expected: Expected, *, closely: bool = False) -> dict[str, Column]:
    """Return the aggregates of a partition's rows that `facts` needs, by name.

    Args:
        source: the column.
        expected: requirements on its numbers.
        closely: find each fault, its number of rows and its first row; otherwise only whether any exists.
    """
    found = conditions(source, expected)
    if not closely:
        wrong = functools.reduce(operator.or_, found.values())
        return {"faulty": F.count_if(wrong)} | _sizes(source)
    asked = {}
    for name, condition in found.items():
        asked[f"{name} rows"] = F.count_if(condition)
        asked[f"{name} first"] = F.min(F.when(condition, F.col(ROW)))
    if "outside" in found:
        array = source.array()
        for _ in range(1, source.depth):
            array = F.flatten(array)
        low, high = _range(source, array)
        asked |= {"low": F.min(low), "high": F.max(high)}
    return asked


ROW = "__distkeras_row"
"""Column of a row's index in its partition, for the close questions."""


def facts(
    frame: DataFrame, source: Source, prefix: str, rows: Iterable[Row], closely: dict[int, Row]
) -> Facts:
    """Combine the aggregates of `questions` from all partitions.

    Args:
        frame: the rows.
        source: the column.
        prefix: prefix of the names of its aggregates.
        rows: the aggregates of each partition, with its index and number of rows.
        closely: the aggregates of the close questions, by partition, if they were computed.
    """
    found, first_row = Facts({}), 0
    for row in sorted(rows, key=lambda row: row["partition"]):
        found = _together(found, _facts_of(source, prefix, row, closely.get(row["partition"]), first_row))
        first_row += row["rows"]
    return replace(found, head=functools.partial(_head_of, frame, source)) if source.binary else found


def _facts_of(source: Source, prefix: str, row: Row, closer: Row | None, first_row: int) -> Facts:
    answers = row.asDict() | (closer.asDict() if closer is not None else {})
    own = {name.removeprefix(prefix): value for name, value in answers.items() if name.startswith(prefix)}
    faults = {
        name.removesuffix(" rows"): Fault(count, first_row + own[name.removesuffix(" rows") + " first"])
        for name, count in own.items()
        if name.endswith(" rows") and count
    }
    levels = range(source.depth)
    known = all(own.get(f"shortest{level}") is not None for level in levels)
    lengths = tuple((own[f"shortest{level}"], own[f"longest{level}"]) for level in levels) if known else ()
    return Facts(faults, lengths, _number(own.get("low")), _number(own.get("high")))


def _head_of(frame: DataFrame, source: Source) -> bytes:
    """Return the first bytes of a row that has a value; none where no row has one."""
    head = F.substring(source.array(), 1, HEAD_BYTES).alias("head")
    with described(frame.sparkSession, "reads the first bytes of a row"):
        row = frame.select(head).where(F.col("head").isNotNull()).first()
    return b"" if row is None else bytes(row["head"])


def _together(one: Facts, other: Facts) -> Facts:
    faults = dict(one.faults)
    for name, fault in other.faults.items():
        before = faults.get(name, Fault(0, fault.first))
        faults[name] = Fault(before.rows + fault.rows, before.first)
    lengths = one.lengths or other.lengths
    if one.lengths and other.lengths:
        lengths = tuple(
            (min(a, c), max(b, d)) for (a, b), (c, d) in zip(one.lengths, other.lengths, strict=True)
        )
    lows = [low for low in (one.low, other.low) if low is not None]
    highs = [high for high in (one.high, other.high) if high is not None]
    return Facts(faults, lengths, min(lows, default=None), max(highs, default=None))


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _sizes(source: Source) -> dict[str, Column]:
    """Return the aggregates of the lengths, by level."""
    if not source.depth:
        return {}
    array = source.array()
    if source.binary:
        return _extremes(0, F.length(array), F.length(array))
    asked = _extremes(0, _size(array), _size(array))
    for level in range(1, source.depth):
        sizes = F.transform(array, _size)
        asked |= _extremes(level, F.array_min(sizes), F.array_max(sizes))
        array = F.flatten(array)
    return asked


def _extremes(level: int, shortest: Column, longest: Column) -> dict[str, Column]:
    return {f"shortest{level}": F.min(shortest), f"longest{level}": F.max(longest)}


def _size(array: Column) -> Column:
    # Without ANSI mode Spark gives a null the size -1.
    return F.when(array.isNotNull(), F.size(array))


def _range(source: Source, array: Column) -> tuple[Column, Column]:
    """Return the least and the greatest number of a row."""
    if isinstance(source.leaf, T.BooleanType):
        array = array.cast(T.ArrayType(T.IntegerType()) if source.depth else T.IntegerType())
    return (F.array_min(array), F.array_max(array)) if source.depth else (array, array)


def _within(source: Source, limits: tuple[int, int]) -> bool:
    """Whether the type of the column guarantees numbers within `limits`."""
    bits = {"ByteType": 8, "ShortType": 16, "IntegerType": 32, "LongType": 64}.get(type(source.leaf).__name__)
    if isinstance(source.leaf, T.BooleanType):
        return limits[0] <= 0 and limits[1] >= 1
    return bits is not None and limits[0] <= -(2 ** (bits - 1)) and limits[1] >= 2 ** (bits - 1) - 1


def _has_null(array: Column, leaf: T.DataType) -> Column:
    """Return whether an array has a null inside.

    `array_contains` is compiled, while `exists` is interpreted and 20 times slower on long arrays.
    `array_contains` gives null if the value is absent and a null is present. The worker checks rows that hold
    this very value.
    """
    if isinstance(leaf, T.FractionalType) and not isinstance(leaf, T.DecimalType):
        absent = F.lit(-math.pi * 1e30).cast(leaf)
        return array.isNotNull() & F.array_contains(array, absent).isNull()
    return F.exists(array, lambda element: element.isNull())


def _is_fractional(number: Column) -> Column:
    # NaN and infinity have no remainder, and count as fractional.
    return number.isNotNull() & (F.coalesce(number % 1, F.lit(1.0)) != 0)
