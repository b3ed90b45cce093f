"""One class against the rest."""

from __future__ import annotations

from typing import Any, final

from pyspark.ml.functions import array_to_vector
from pyspark.ml.param.shared import Param, Params
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer


@final
class BinaryLabelTransformer(ColumnTransformer):
    """Gives the vector [1, 0] where the column equals `label`, and [0, 1] elsewhere.

    A null stays null. A NaN equals only the label NaN.

    Args:
        input_column: strings, numbers or booleans.
        output_column: vectors of length 2.
        label: the class that becomes [1, 0].

    Raises:
        TypeError: from `transform`: the column and `label` have different types, as strings and numbers.
    """

    label: Param[Any] = Param(Params._dummy(), "label", "the class that becomes [1, 0]")

    def __init__(
        self,
        input_column: str | None = None,
        output_column: str | None = None,
        label: str | float | bool | None = None,
    ) -> None:
        super().__init__()
        self._set_given(input_col=input_column, output_col=output_column, label=label)

    def _expression(self, source: Source, field: T.StructField) -> Column:
        label = self._value("label")
        text = isinstance(source.leaf, T.StringType)
        flag = isinstance(source.leaf, T.BooleanType)
        if source.depth or text != isinstance(label, str) or flag != isinstance(label, bool):
            raise TypeError(
                f"BinaryLabelTransformer: expected a column of the type of `label`={label!r}. "
                f"Received: {source.name!r} of type {field.dataType.simpleString()}"
            )
        hit = (source.column == F.lit(label)).cast("double")
        return F.when(source.column.isNotNull(), array_to_vector(F.array(hit, 1.0 - hit)))
