"""Outputs of a model as Arrow arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True)
class OutputColumn:
    """The column of one output.

    Attributes:
        name: name of the field, if the model has several outputs.
        depth: levels of nested arrays; 0 for a single number.
        dtype: NumPy's name of the number type.
    """

    name: str
    depth: int
    dtype: str

    def empty(self) -> pa.Array:
        """Return the array of predictions for no rows."""
        return to_arrow(np.empty((0,) + (1,) * self.depth, self.dtype), self)


def from_arrow(column: pa.ChunkedArray, shape: tuple[int | None, ...] | None) -> npt.NDArray[Any]:
    """Return the output in `column`, shape (rows, ...).

    Args:
        column: as `to_arrow` makes it.
        shape: shape of a row; `None` if it is not known.

    Raises:
        ValueError: the rows have different lengths.
    """
    array = column.combine_chunks()
    lengths = [len(array)]
    while pa.types.is_list(array.type):
        counts = set(array.value_lengths().unique().to_pylist())
        if len(counts) > 1:
            raise ValueError(f"Expected outputs of one length. Received: rows of {sorted(counts)} values")
        lengths.append(counts.pop() if counts else 0)
        array = array.flatten()
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    if shape is not None and None not in shape:
        lengths[1:] = [length or 0 for length in shape]
    return numbers.reshape(lengths)


def to_arrow(output: npt.NDArray[Any], column: OutputColumn) -> pa.Array:
    """Return `output`, shape (rows, ...), as an array with one value or nested list per row.

    Raises:
        ValueError: a row has other axes, or more values, than the column.
    """
    num_rows, shape = len(output), output.shape[1:]
    if column.depth == 1:
        shape = (math.prod(shape),)
    if len(shape) != column.depth and math.prod(shape) != 1:
        raise ValueError(
            f"Expected {column.depth} axes per row of output {column.name!r}. Received: shape {shape}"
        )
    if column.depth == 0:
        shape = ()
    array = pa.array(np.ascontiguousarray(output, column.dtype).reshape(-1))
    counts = [num_rows * math.prod(shape[:level]) for level in range(len(shape))]
    for count, length in zip(reversed(counts), reversed(shape), strict=True):
        offsets = pa.array(np.arange(count + 1, dtype=np.int64) * length).cast(pa.int32())
        array = pa.ListArray.from_arrays(offsets, array)
    return array
