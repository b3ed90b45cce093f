"""What one training step takes, and how it is cut from rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy.typing as npt

from distkeras.worker.columns import Column, Columns
from distkeras.worker.decode import Table

Array = npt.NDArray[Any]
Tensors = Array | list[Array] | dict[str, Array] | None
"""One array, or several in the order of the model's inputs or outputs, or by their keys."""


class Minibatch(NamedTuple):
    """The rows of one step. Arrays may be views of memory that others read too: do not write to them.

    Attributes:
        x: inputs.
        y: labels; `None` where there are none.
        sample_weight: of shape (rows,), or `None`.
        num_samples: rows.
    """

    x: Tensors
    y: Tensors
    sample_weight: Array | None
    num_samples: int


class Cutter:
    """Brings rows to the model's shapes and types, and cuts them into minibatches.

    Args:
        columns: what goes where.
        batch_size: rows of a minibatch; the last of an epoch may have fewer.
    """

    def __init__(self, columns: Columns, batch_size: int) -> None:
        self._columns = columns
        self._batch_size = batch_size

    def cut(self, table: Table, num_rows: int) -> Iterator[Minibatch]:
        """Yield the minibatches of the `num_rows` rows in `table`, in order."""
        columns, size = self._columns, self._batch_size
        features = [_form(table, column) for column in columns.features]
        labels = [_form(table, column) for column in columns.labels]
        weight = self._weight(table, labels)
        for first in range(0, num_rows, size):
            rows = slice(first, first + size)
            yield Minibatch(
                _arrange(columns.features, features, rows),
                _arrange(columns.labels, labels, rows),
                None if weight is None else weight[rows],
                min(size, num_rows - first),
            )

    def _weight(self, table: Table, labels: list[Array]) -> Array | None:
        columns = self._columns
        weight = _form(table, columns.sample_weight) if columns.sample_weight else None
        if columns.class_weight is None:
            return weight
        by_class = columns.class_weight.weigh(labels[0])
        return by_class if weight is None else weight * by_class


def _form(table: Table, column: Column) -> Array:
    rows = table[column.name]
    return rows.reshape(len(rows), *column.shape).astype(column.numpy_dtype, copy=False)


def _arrange(columns: tuple[Column, ...], arrays: list[Array], rows: slice) -> Tensors:
    if not columns:
        return None
    if columns[0].key is not None:
        return {str(column.key): array[rows] for column, array in zip(columns, arrays, strict=True)}
    if len(columns) == 1:
        return arrays[0][rows]
    return [array[rows] for array in arrays]
