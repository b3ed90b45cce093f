"""Sparse vectors as dense ones."""

from __future__ import annotations

from typing import final

from pyspark.sql import Column
from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, as_kind, check_numbers


@final
class DenseTransformer(ColumnTransformer):
    """Gives every vector as a dense one. Arrays are dense already and stay as they are.

    The trainers and `ModelPredictor` take sparse vectors as they come.

    Args:
        input_col: vectors, or arrays of numbers.
        output_col: of the same kind.

    Raises:
        TypeError: from `transform`: the column holds no vectors or arrays of numbers.
    """

    def __init__(self, input_col: str | None = None, output_col: str | None = None) -> None:
        super().__init__()
        self._set_given(input_col=input_col, output_col=output_col)

    def _expression(self, source: Source, field: T.StructField) -> Column:
        check_numbers(source, field, self, depth=(1,))
        return as_kind(source, source.array("float64"))
