"""The user's columns: their types, and their casts in the JVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.casts import mend
from distkeras.worker.columns import RAW

NUMBER_TYPES: Mapping[str, T.DataType] = {
    "float32": T.FloatType(),
    "float64": T.DoubleType(),
    "bool": T.BooleanType(),
    "int8": T.ByteType(),
    "int16": T.ShortType(),
    "int32": T.IntegerType(),
    "int64": T.LongType(),
}
"""The Spark type of each number type that a column can hold."""

WIDENED = {
    "float16": "float32",
    "bfloat16": "float32",
    "uint8": "int16",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}
"""The type in which a column holds the numbers of another one."""

SPARK_TYPES: Mapping[str, T.DataType] = {
    **NUMBER_TYPES,
    **{narrow: NUMBER_TYPES[wide] for narrow, wide in WIDENED.items()},
    "string": T.StringType(),
}
"""The Spark type in which each type of a model's input travels."""


def array_of(kind: T.DataType, depth: int) -> T.DataType:
    """Return the type of arrays that are nested `depth` times; `kind` itself for 0."""
    for _ in range(depth):
        kind = T.ArrayType(kind)
    return kind


@dataclass(frozen=True)
class Source:
    """A column of the user's DataFrame that can feed a model.

    Attributes:
        name: the user's name of the column.
        depth: 0 for a scalar, 1 for bytes, vectors and arrays, more for nested arrays.
        leaf: type of the elements.
        vector: whether it is a Spark ML vector.
        shape: shape of one row, if known, for flattened rows.
        path: argument of `pyspark.sql.functions.col` that finds the column; default: the name itself.
        written: the path in the form that the user would write; default: the name.
        nullable: whether an array may have a null inside.
    """

    name: str
    depth: int
    leaf: T.DataType
    vector: bool = False
    shape: tuple[int, ...] | None = None
    path: str = ""
    written: str = ""
    nullable: bool = True

    @property
    def column(self) -> Column:
        """The Spark column."""
        return F.col(self.path or quoted(self.name))

    @property
    def binary(self) -> bool:
        """Whether it holds bytes, which travel unconverted."""
        return isinstance(self.leaf, T.BinaryType)

    @property
    def integral(self) -> bool:
        """Whether it holds integers or booleans."""
        return isinstance(self.leaf, (T.IntegralType, T.BooleanType))

    @property
    def floating(self) -> bool:
        """Whether its numbers may be NaN or infinite."""
        return isinstance(self.leaf, (T.FloatType, T.DoubleType))

    def array(self, dtype: str = "float32") -> Column:
        """Return the column; a vector becomes an array of float32 or float64."""
        if not self.vector:
            return self.column
        # Spark's conversion fails on a null before the null is counted.
        wide = "float64" if dtype in ("float64", RAW) else "float32"
        return F.when(self.column.isNotNull(), vector_to_array(self.column, wide))

    def travel_type(self, dtype: str) -> T.DataType:
        """Return the Spark type in which the column travels to become `dtype` in the worker."""
        if self.binary:
            return T.BinaryType()
        return array_of(self._own_type() if dtype == RAW else SPARK_TYPES[dtype], self.depth)

    def _own_type(self) -> T.DataType:
        return T.DoubleType() if self.vector or isinstance(self.leaf, T.DecimalType) else self.leaf

    def cast(self, dtype: str) -> Column:
        """Return the column as it travels."""
        return self.array(dtype).cast(self.travel_type(dtype))


def assembled(sources: Sequence[Source], dtype: str) -> Column:
    """Return the columns as they travel: a single one directly, several as one array, in their order."""
    if len(sources) == 1:
        return sources[0].cast(dtype)
    if all(source.depth == 0 for source in sources):
        return F.array(*(source.cast(dtype) for source in sources))
    casts = [source.cast(dtype) for source in sources]
    return F.concat(
        *(cast if source.depth else F.array(cast) for source, cast in zip(sources, casts, strict=True))
    )


def quoted(name: str) -> str:
    """Return a column name quoted, so that dots and backticks in it are literal."""
    return "`" + name.replace("`", "``") + "`"


def check_new(names: Sequence[str], dataframe: DataFrame, argument: str) -> None:
    """Reject names for new columns of `dataframe` that are taken or duplicate.

    Raises:
        ValueError: a name is taken or duplicate; the session decides whether `a` and `A` are equal.
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


def source_of(field: T.StructField, path: str = "", written: str = "") -> Source:
    """Return the source for a column, with the type of its values.

    Args:
        field: the column, under the user's name for it.
        path: as in `Source`.
        written: as in `Source`.

    Raises:
        TypeError: the column cannot feed a model; the message suggests a cast.
    """
    kind, depth, nullable = field.dataType, 0, False
    if _is_vector(kind):
        return Source(field.name, 1, T.DoubleType(), vector=True, path=path, written=written)
    if isinstance(kind, T.BinaryType):
        return Source(field.name, 1, kind, path=path, written=written)
    while isinstance(kind, T.ArrayType):
        nullable |= kind.containsNull
        kind, depth = kind.elementType, depth + 1
    if not isinstance(kind, (T.NumericType, T.BooleanType, T.StringType)):
        raise TypeError(
            f"Column {field.name!r} cannot feed a model. Expected numbers, booleans, arrays of them, Spark "
            f"ML vectors, or bytes (binary). Received: {field.dataType.simpleString()}. "
            f"{mend(written or plain(field.name), kind, depth)}"
        )
    return Source(field.name, depth, kind, path=path, written=written, nullable=nullable)


def _is_vector(kind: T.DataType) -> bool:
    return kind.typeName() in ("vectorudt", "vector") or type(kind).__name__ == "VectorUDT"


def plain(name: str) -> str:
    """Return a name in the form for `pyspark.sql.functions.col`: unquoted if possible."""
    return name if name.isidentifier() else quoted(name)
