"""Scaling of numbers from one range to another."""

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
    """Scales every number: `x' = (x - o_min) / (o_max - o_min) * (n_max - n_min) + n_min`.

    Numbers outside the old range are scaled to outside the new range. If the old range has zero width, every
    number becomes the middle of the new range, as in Spark's own `MinMaxScaler`. NaN stays NaN.

    Args:
        o_min: smallest number of the old range.
        o_max: largest number of the old range.
        n_min: what `o_min` becomes.
        n_max: what `o_max` becomes.
        input_col: vectors, arrays (nested or not), or numbers.
        output_col: of the same kind; float if the input is float, else double.
        is_vector: True if the column must hold vectors or arrays, False if it must hold numbers, None for
            either.

    Raises:
        ValueError: from the constructor: a bound is not finite.
        TypeError: from `transform`: the column is of another kind.

    Example:
        ```python
        MinMaxTransformer(o_min=0, o_max=255, n_min=0, n_max=1, input_col="pixels", output_col="features")
        ```
    """

    oMin: Param[float] = Param(Params._dummy(), "oMin", "minimum of the old range", finite)
    oMax: Param[float] = Param(Params._dummy(), "oMax", "maximum of the old range", finite)
    nMin: Param[float] = Param(Params._dummy(), "nMin", "minimum of the new range", finite)
    nMax: Param[float] = Param(Params._dummy(), "nMax", "maximum of the new range", finite)
    isVector: Param[bool] = Param(
        Params._dummy(),
        "isVector",
        "whether the column must hold vectors or arrays (true) or numbers (false); unset for either",
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
        # Spark interprets functions of array elements, so skip each step that changes nothing.
        if o_min:
            x = x - o_min
        if o_max - o_min != 1:
            x = x / (o_max - o_min)
        if n_max - n_min != 1:
            x = x * (n_max - n_min)
        return x + n_min if n_min else x
