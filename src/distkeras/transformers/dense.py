"""Sparse vectors to dense vectors."""

from __future__ import annotations

from typing import final

from pyspark.sql import Column
from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, as_kind, check_numbers


@final
class DenseTransformer(ColumnTransformer):
    """Converts every vector to a dense vector. Arrays are dense already and stay unchanged.

    The trainers and `ModelPredictor` also take sparse vectors directly.

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
