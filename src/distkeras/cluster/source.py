"""The columns that a user has: what they hold, how the JVM casts them, and facts about their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.worker.columns import RAW

SPARK_TYPES = {
    "float16": "float",
    "bfloat16": "float",
    "float32": "float",
    "float64": "double",
    "bool": "boolean",
    "int8": "tinyint",
    "int16": "smallint",
    "int32": "int",
    "int64": "bigint",
    "uint8": "smallint",
    "uint16": "int",
    "uint32": "bigint",
    "uint64": "bigint",
    "string": "string",
}
"""The Spark type in which each type of a model travels."""


@dataclass(frozen=True)
class Source:
    """A column of the user's DataFrame that can feed a model.

    Attributes:
        name: as the user gave it.
        depth: 0 for a scalar, 1 for bytes, vectors and arrays, more for nested arrays.
        leaf: type of the elements.
        vector: whether it is a Spark ML vector.
        shape: of one row, where that is known of rows that lie flat.
    """

    name: str
    depth: int
    leaf: T.DataType
    vector: bool = False
    shape: tuple[int, ...] | None = None

    @property
    def column(self) -> Column:
        """The column itself."""
        return F.col(quoted(self.name))

    @property
    def binary(self) -> bool:
        """Whether it holds bytes, which travel as they are."""
        return isinstance(self.leaf, T.BinaryType)

    @property
    def integral(self) -> bool:
        """Whether it holds integers or booleans."""
        return isinstance(self.leaf, (T.IntegralType, T.BooleanType))

    def array(self, dtype: str = "float32") -> Column:
        """The column, a vector as an array of float32 or float64."""
        if not self.vector:
            return self.column
        # Spark's conversion fails on a null, before anybody could count it.
        wide = "float64" if dtype in ("float64", RAW) else "float32"
        return F.when(self.column.isNotNull(), vector_to_array(self.column, wide))

    def travel_type(self, dtype: str) -> str:
        """The Spark type in which the column travels to become `dtype` in the worker."""
        if self.binary:
            return "binary"
        leaf = self._own_type() if dtype == RAW else SPARK_TYPES[dtype]
        return "array<" * self.depth + leaf + ">" * self.depth

    def _own_type(self) -> str:
        decimal = isinstance(self.leaf, T.DecimalType)
        return "double" if decimal or self.vector else str(self.leaf.simpleString())

    def cast(self, dtype: str) -> Column:
        """The column as it travels."""
        return self.array(dtype).cast(self.travel_type(dtype))


def quoted(name: str) -> str:
    """Return the name of a column so that dots and backticks in it mean themselves."""
    return "`" + name.replace("`", "``") + "`"


def check_new(names: Sequence[str], dataframe: DataFrame, argument: str) -> None:
    """Refuse names for new columns of `dataframe`, of which one is taken, or given twice.

    Raises:
        ValueError: it is so; whether `a` and `A` are the same, the session says.
    """
    exact = dataframe.sparkSession.conf.get("spark.sql.caseSensitive", "false") == "true"
    taken = {name if exact else name.lower() for name in dataframe.columns}
    for name in names:
        key = name if exact else name.lower()
        if key in taken:
            raise ValueError(
                f"The DataFrame has a column {name!r} already, or would have two: drop it, or choose other "
                f"names. Received: {argument}={list(names)}"
            )
        taken.add(key)


def source_of(field: T.StructField) -> Source:
    """Tell what a column holds.

    Raises:
        TypeError: nothing that can feed a model.
    """
    kind, depth = field.dataType, 0
    if kind.typeName() in ("vectorudt", "vector") or type(kind).__name__ == "VectorUDT":
        return Source(field.name, 1, T.DoubleType(), vector=True)
    if isinstance(kind, T.BinaryType):
        return Source(field.name, 1, kind)
    while isinstance(kind, T.ArrayType):
        kind, depth = kind.elementType, depth + 1
    if not isinstance(kind, (T.NumericType, T.BooleanType, T.StringType)):
        raise TypeError(
            f"Column {field.name!r} cannot feed a model. Expected numbers, booleans, arrays of them, Spark "
            f"ML vectors, or bytes (binary). Received: {field.dataType.simpleString()}. Convert it first."
        )
    return Source(field.name, depth, kind)


@dataclass(frozen=True)
class Facts:
    """What a pass over the rows found out about one column.

    Attributes:
        nulls: rows that are null.
        inner_nulls: rows with a null inside.
        lengths: shortest and longest array, by level of nesting.
        low, high: least and greatest number; `None` where not looked for, or where there is none.
        fractional: rows with a number that is no integer.
    """

    nulls: int
    inner_nulls: int
    lengths: tuple[tuple[int, int], ...]
    low: float | None
    high: float | None
    fractional: int


def questions(source: Source, values: bool) -> dict[str, Column]:
    """Return the aggregates that `facts` needs, by name; with `values`, those of the numbers too."""
    asked = {"nulls": F.count_if(source.column.isNull())}
    array, has_inner_null = source.array(), F.lit(False)
    if source.binary:
        asked |= _lengths(0, F.length(array), F.length(array))
    elif source.depth:
        asked |= _lengths(0, _size(array), _size(array))
    for level in range(1, source.depth):
        sizes = F.transform(array, _size)
        asked |= _lengths(level, F.array_min(sizes), F.array_max(sizes))
        has_inner_null |= F.exists(array, lambda inner: inner.isNull())
        array = F.flatten(array)
    if source.depth and not source.binary and not source.vector:
        has_inner_null |= _has_null(array, source.leaf)
    asked["inner_nulls"] = F.count_if(has_inner_null)
    if values and not source.binary and not isinstance(source.leaf, T.StringType):
        numbers = array
        if isinstance(source.leaf, T.BooleanType):
            numbers = array.cast("array<int>" if source.depth else "int")
        asked["low"] = F.min(F.array_min(numbers) if source.depth else numbers)
        asked["high"] = F.max(F.array_max(numbers) if source.depth else numbers)
        if not source.integral:
            broken = F.exists(numbers, _is_fractional) if source.depth else _is_fractional(numbers)
            asked["fractional"] = F.count_if(broken)
    return asked


def facts(source: Source, prefix: str, answers: Iterable[Row]) -> Facts:
    """Put together the answers to `questions` from every partition; their names begin with `prefix`."""

    def gather(name: str) -> list[Any]:
        key = prefix + name
        return [row[key] for row in answers if key in row and row[key] is not None]

    answers = list(answers)
    levels = [
        (min(gather(f"shortest{level}")), max(gather(f"longest{level}")))
        for level in range(source.depth)
        if gather(f"shortest{level}")
    ]
    low, high = gather("low"), gather("high")
    return Facts(
        nulls=sum(gather("nulls")),
        inner_nulls=sum(gather("inner_nulls")),
        lengths=tuple(levels),
        low=float(min(low)) if low else None,
        high=float(max(high)) if high else None,
        fractional=sum(gather("fractional")),
    )


def _lengths(level: int, shortest: Column, longest: Column) -> dict[str, Column]:
    return {f"shortest{level}": F.min(shortest), f"longest{level}": F.max(longest)}


def _size(array: Column) -> Column:
    # Without ANSI mode Spark says that a null has size -1.
    return F.when(array.isNotNull(), F.size(array))


def _has_null(array: Column, leaf: T.DataType) -> Column:
    """Whether an array has a null inside.

    `array_contains` is compiled, `exists` is interpreted and 20 times slower on long arrays: it gives null
    where the value is absent and a null is there. A row that holds this very value is left to the worker.
    """
    if isinstance(leaf, T.FractionalType) and not isinstance(leaf, T.DecimalType):
        absent = F.lit(-math.pi * 1e30).cast(leaf)
        return array.isNotNull() & F.array_contains(array, absent).isNull()
    return F.exists(array, lambda element: element.isNull())


def _is_fractional(number: Column) -> Column:
    # NaN and infinity have no remainder either.
    return number.isNotNull() & (F.coalesce(number % 1, F.lit(1.0)) != 0)
