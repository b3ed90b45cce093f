"""Class indices as one-hot arrays."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from typing import final

from pyspark.ml.param.shared import Param, Params
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, check_numbers, positive_integer


@final
class OneHotTransformer(ColumnTransformer):
    """Gives an array of `output_dim` doubles: 1 at the index of the label, else 0.

    A null stays null. A label outside 0 ... output_dim - 1, a fraction or NaN ends the Spark job with an
    error that names the label: zeros or a wrapped index would silently train a wrong class.

    Args:
        output_dim: number of classes.
        input_col: class indices, of any numeric type.
        output_col: array<double>.

    Raises:
        ValueError: from the constructor: `output_dim` is not a positive integer.
        TypeError: from `transform`: the column does not hold numbers.
    """

    outputDim: Param[int] = Param(Params._dummy(), "outputDim", "number of classes", positive_integer)

    def __init__(
        self, output_dim: int | None = None, input_col: str | None = None, output_col: str | None = None
    ) -> None:
        super().__init__()
        self._set_given(output_dim=output_dim, input_col=input_col, output_col=output_col)

    def _expression(self, source: Source, field: T.StructField) -> Column:
        check_numbers(source, field, self, depth=(0,))
        size = self._value("outputDim")
        label = source.column
        index = label.cast("int")
        valid = (label >= 0) & (label < size)  # Before the cast, which fails for NaN and large numbers.
        if not source.integral:
            valid = valid & (label == F.floor(label))
        zero = F.lit(0.0)
        encoded = F.concat(
            F.array_repeat(zero, index), F.array(F.lit(1.0)), F.array_repeat(zero, size - 1 - index)
        )
        message = F.concat(
            F.lit(
                f"OneHotTransformer: expected class indices from 0 to {size - 1} in column {source.name!r}: "
                "drop the row, index the classes from 0, or raise output_dim. Received: "
            ),
            label.cast("string"),
        )
        return F.when(label.isNull(), None).when(valid, encoded).otherwise(F.raise_error(message))
