"""Numbers brought from one range to another."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from typing import final

from pyspark.ml.param.shared import Param, Params, TypeConverters
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, check_numbers, elementwise, finite


@final
class MinMaxTransformer(ColumnTransformer):
    """`x' = (x - o_min) / (o_max - o_min) * (n_max - n_min) + n_min`, for every number.

    Numbers outside the old range land outside the new one. Where the old range is zero wide, every number
    becomes the middle of the new one, as in Spark's own `MinMaxScaler`. NaN stays NaN.

    Args:
        o_min, o_max: range of the numbers as they are.
        n_min, n_max: range of the numbers as they will be.
        input_col: vectors, arrays (nested or not), or numbers.
        output_col: of the same kind; double, or float where the input is.
        is_vector: whether the column must hold vectors or arrays (True), or numbers (False). None: either.

    Raises:
        ValueError: from the constructor: a bound that is not finite.
        TypeError: from `transform`: a column of another kind.

    Example:
        ```python
        MinMaxTransformer(o_min=0, o_max=255, n_min=0, n_max=1, input_col="pixels", output_col="features")
        ```
    """

    oMin: Param[float] = Param(Params._dummy(), "oMin", "least number of the old range", finite)
    oMax: Param[float] = Param(Params._dummy(), "oMax", "greatest number of the old range", finite)
    nMin: Param[float] = Param(Params._dummy(), "nMin", "what oMin becomes", finite)
    nMax: Param[float] = Param(Params._dummy(), "nMax", "what oMax becomes", finite)
    isVector: Param[bool] = Param(
        Params._dummy(),
        "isVector",
        "whether the column must hold vectors or arrays (true) or numbers (false); unset: either",
        TypeConverters.toBoolean,
    )

    def __init__(
        self,
        o_min: float | None = None,
        o_max: float | None = None,
        n_min: float | None = None,
        n_max: float | None = None,
        input_col: str | None = None,
        output_col: str | None = None,
        is_vector: bool | None = None,
    ) -> None:
        super().__init__()
        self._set_given(
            o_min=o_min,
            o_max=o_max,
            n_min=n_min,
            n_max=n_max,
            input_col=input_col,
            output_col=output_col,
            is_vector=is_vector,
        )

    def _expression(self, source: Source, field: T.StructField) -> Column:
        depth: tuple[int, ...] = ()
        if self.isDefined("isVector"):
            depth = (1, 2, 3, 4) if self.getOrDefault("isVector") else (0,)
        check_numbers(source, field, self, depth=depth)
        return elementwise(source, self._scaled)

    def _scaled(self, x: Column) -> Column:
        o_min, o_max, n_min, n_max = (self._value(name) for name in ("oMin", "oMax", "nMin", "nMax"))
        if o_max == o_min:
            return F.when(F.isnan(x), x).when(x.isNotNull(), F.lit((n_min + n_max) / 2))
        # Spark interprets functions of array elements: each step left out counts.
        if o_min:
            x = x - o_min
        if o_max - o_min != 1:
            x = x / (o_max - o_min)
        if n_max - n_min != 1:
            x = x * (n_max - n_min)
        return x + n_min if n_min else x
