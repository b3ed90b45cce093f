"""Predictions for every class to the index of the predicted class."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from typing import final

from pyspark.ml.param.shared import Param, Params, TypeConverters
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, check_numbers, finite, let, positive_integer


@final
class LabelIndexTransformer(ColumnTransformer):
    """Gives the index of the predicted class, as a double.

    It is the first class whose value reaches `activation_threshold`. If no value does, it is the class of the
    largest value above 0, or the first of several equal ones. If no value is above 0, it is `default_index`.
    NaN values are ignored. A null, or a row with a null inside, gives null. A row whose length is not
    `output_dim` ends the Spark job with an error.

    Args:
        output_dim: number of classes.
        input_col: vectors or arrays of `output_dim` numbers.
        output_col: double.
        default_index: the result if no value is above 0.
        activation_threshold: the first class with a value of at least this is predicted.

    Raises:
        ValueError: from the constructor: `output_dim` is not a positive integer.
        TypeError: from `transform`: the column holds no vectors or arrays of numbers.
    """

    outputDim: Param[int] = Param(Params._dummy(), "outputDim", "number of classes", positive_integer)
    defaultIndex: Param[int] = Param(
        Params._dummy(), "defaultIndex", "the result if no value is above 0", TypeConverters.toInt
    )
    activationThreshold: Param[float] = Param(
        Params._dummy(), "activationThreshold", "value at which the first class is predicted", finite
    )

    def __init__(
        self,
        output_dim: int | None = None,
        input_col: str | None = None,
        output_col: str | None = None,
        default_index: int | None = None,
        activation_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self._setDefault(
            inputCol="prediction", outputCol="prediction_index", defaultIndex=0, activationThreshold=0.55
        )
        self._set_given(
            output_dim=output_dim,
            input_col=input_col,
            output_col=output_col,
            default_index=default_index,
            activation_threshold=activation_threshold,
        )

    def _expression(self, source: Source, field: T.StructField) -> Column:
        check_numbers(source, field, self, depth=(1,))
        size = self._value("outputDim")
        return let(source.array("float64"), lambda values: self._checked(values, size, source.name))

    def _checked(self, values: Column, size: int, name: str) -> Column:
        message = F.concat(
            F.lit(f"LabelIndexTransformer: expected output_dim={size} values in column {name!r}. Received: "),
            F.size(values).cast("string"),
        )
        index = let(F.transform(values, self._rank), self._index)
        return F.when(F.size(values) == size, index).when(values.isNotNull(), F.raise_error(message))

    def _rank(self, value: Column) -> Column:
        """Return the rank of a value: infinity from the threshold on, 0 if not above 0, else the value."""
        value = value.cast("double")
        decides = value >= self._value("activationThreshold")
        # In Spark, NaN is greater than any number.
        return (
            F.when(F.isnan(value), 0.0)
            .when(decides, float("inf"))
            .when(value > 0, value)
            .when(value.isNotNull(), 0.0)
        )

    def _index(self, ranks: Column) -> Column:
        best = F.array_max(ranks)
        place = F.when(best > 0, F.array_position(ranks, best) - 1).otherwise(self._value("defaultIndex"))
        return F.when(~F.exists(ranks, F.isnull), place.cast("double"))
