"""The base classes of all transformers: Params, the input column and the new column."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from pyspark.ml import Transformer
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param.shared import HasInputCol, HasOutputCol, Params
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.accessors import accessors
from distkeras.cluster.source import Source, source_of
from distkeras.cluster.validate import find


class ParamsTransformer(Transformer, DefaultParamsReadable, DefaultParamsWritable):  # type: ignore[misc]
    """Abstract: a Transformer whose constructor takes its Params in snake case, and which Spark can save."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        accessors(cls)

    def _set_given(self, **given: Any) -> None:
        """Set Params by snake-case names: `output_dim=10` sets `outputDim`; None leaves a Param unchanged."""
        self._set(**{camel_case(name): value for name, value in given.items() if value is not None})

    def _value(self, name: str) -> Any:
        """Return the value of a required Param.

        Raises:
            ValueError: the Param is not set.
        """
        return value_of(self, name)


class ColumnTransformer(ParamsTransformer, HasInputCol, HasOutputCol):  # type: ignore[misc]
    """Abstract: adds the column `outputCol`, a Spark expression of `inputCol`.

    It replaces an existing column of this name.
    """

    @abstractmethod
    def _expression(self, source: Source, field: T.StructField) -> Column:
        """Return the new column; `field` is the schema field of the input column.

        Raises:
            TypeError: this transformer does not support the type of the column.
        """

    def _transform(self, dataset: DataFrame) -> DataFrame:
        fields = {field.name: field for field in dataset.schema.fields}
        field = find(self._value("inputCol"), fields, "input_col")
        return dataset.withColumn(self._value("outputCol"), self._expression(source_of(field), field))


def value_of(stage: Params, name: str) -> Any:
    """Return the value of the Param `name` of `stage`.

    Raises:
        ValueError: the Param is not set.
    """
    if not stage.isDefined(name):
        raise ValueError(
            f"{type(stage).__name__} needs `{name}`: pass it to the constructor, or set it as a Param. "
            f"Received: {name}=None"
        )
    return stage.getOrDefault(name)


def camel_case(name: str) -> str:
    """Return the camel-case Param name of a snake-case argument."""
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def let(value: Column, body: Callable[[Column], Column]) -> Column:
    """Return `body(value)`; `value` is computed once, however often `body` uses it."""
    return F.transform(F.array(value), body)[0]


def elementwise(source: Source, function: Callable[[Column], Column]) -> Column:
    """Apply `function`, from double to double, to each number of a column.

    A vector gives a dense vector, an array an array, and a number a number. The result is float if the input
    is float, else double.
    """
    kind = "float" if isinstance(source.leaf, T.FloatType) else "double"

    def number(value: Column) -> Column:
        if kind == "double" and isinstance(source.leaf, T.DoubleType):
            return function(value)
        return function(value.cast("double")).cast(kind)

    def nested(value: Column, depth: int) -> Column:
        return F.transform(value, lambda part: nested(part, depth - 1)) if depth else number(value)

    return as_kind(source, nested(source.array("float64"), source.depth))


def as_kind(source: Source, array: Column) -> Column:
    """Return an array of double, as a vector if `source` is a vector; a null stays null."""
    if not source.vector:
        return array
    return F.when(source.column.isNotNull(), array_to_vector(array))


def check_numbers(source: Source, field: T.StructField, who: object, *, depth: tuple[int, ...] = ()) -> None:
    """Check that a column holds numbers, nested to one of the depths `depth` (if given).

    Raises:
        TypeError: it does not.
    """
    wrong_kind = source.binary or isinstance(source.leaf, (T.StringType, T.BooleanType))
    if wrong_kind or (depth and source.depth not in depth):
        expected = "numbers, vectors or arrays of numbers"
        if depth:
            expected = " or ".join(("numbers", "vectors or arrays of numbers")[level > 0] for level in depth)
        raise TypeError(
            f"{type(who).__name__}: expected {expected} in column {source.name!r}. "
            f"Received: {field.dataType.simpleString()}"
        )


def finite(value: Any) -> float:
    """Param converter: a finite float.

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not finite.
    """
    number = _number(value)
    if number - number != 0:
        raise ValueError(f"Expected a finite number. Received: {value!r}")
    return number


def positive_integer(value: Any) -> int:
    """Param converter: an integer of at least 1.

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not an integer, or is below 1.
    """
    number = _number(value)
    if number != int(number) or number < 1:
        raise ValueError(f"Expected a positive integer. Received: {value!r}")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise TypeError(f"Expected a number. Received: {value!r}")
    return float(value)
