"""Flat rows to nested arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

from pyspark.ml.param.shared import Param, Params, TypeConverters
from pyspark.sql import Column
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source
from distkeras.transformers.base import ColumnTransformer, check_numbers, let


def _shape(value: Any) -> list[int]:
    lengths: list[int] = TypeConverters.toListInt(value)
    if not lengths or any(n < 1 and n != -1 for n in lengths) or lengths.count(-1) > 1:
        raise ValueError(
            "Expected a shape of positive lengths, one of which may be -1 (inferred from the others). "
            f"Received: shape={value!r}"
        )
    return lengths


@final
class ReshapeTransformer(ColumnTransformer):
    """Reshapes each row to an array nested to `shape`, in row-major order as in NumPy.

    A row that does not fill the shape ends the Spark job with an error. The trainers and `ModelPredictor`
    need no reshaping: they reshape flat rows to the input shape of the model.

    Args:
        input_col: vectors or arrays of numbers.
        output_col: arrays with one level of nesting per length in `shape`; double for vectors, else of the
            same type.
        shape: lengths; one may be -1.

    Raises:
        ValueError: from the constructor: `shape` is not a valid shape.
        TypeError: from `transform`: the column holds no vectors or arrays of numbers.
    """

    shape: Param[list[int]] = Param(Params._dummy(), "shape", "lengths; one may be -1", _shape)

    def __init__(
        self,
        input_col: str | None = None,
        output_col: str | None = None,
        shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self._set_given(
            input_col=input_col, output_col=output_col, shape=list(shape) if shape is not None else None
        )

    def _expression(self, source: Source, field: T.StructField) -> Column:
        check_numbers(source, field, self, depth=(1,))
        shape: list[int] = self._value("shape")
        known = math.prod(length for length in shape if length != -1)

        def nested(values: Column) -> Column:
            size = F.size(values)
            fills = (size % known == 0) & (size > 0) if -1 in shape else size == known
            message = F.concat(
                F.lit(
                    f"ReshapeTransformer: expected rows that fill shape {tuple(shape)} in column "
                    f"{source.name!r}. Received: "
                ),
                size.cast("string"),
                F.lit(" values"),
            )
            free = (size / known).cast("int")
            whole = F.when(values.isNotNull() & ~fills, F.raise_error(message)).otherwise(values)
            lengths = [free if length == -1 else length for length in shape]
            return let(whole, lambda flat: F.when(flat.isNotNull(), _nested(flat, lengths, 0)))

        return let(source.array("float64"), nested)


def _nested(flat: Column, lengths: list[int | Column], first: int | Column) -> Column:
    """Return the part of `flat` that starts at index `first`, nested to `lengths`."""
    length, *rest = lengths

    def part(index: int | Column) -> Column:
        return _nested(flat, rest, index) if rest else flat[index]

    if isinstance(length, int) and length == 1:
        return F.array(part(first))
    # The sequence computes the indices, because Spark interprets functions of elements. `slice` would copy
    # the whole array each time.
    step = math.prod(rest, start=F.lit(1))
    return F.transform(F.sequence(F.lit(first), first + (length - 1) * step, step), part)
