"""The data of one training step, and how it is made from rows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from distkeras.worker.columns import Column, Columns
from distkeras.worker.decode import Table
from distkeras.worker.padding import Padding, fill, filled
from distkeras.worker.preprocess import Preprocessor, as_given, rng_of
from distkeras.worker.ragged import Ragged
from distkeras.worker.step_buffer import map_leaves

Array = npt.NDArray[Any]
Tensors = Array | list[Array] | dict[str, Array] | None
"""One array, or several in the order of the model's inputs or outputs, or by their keys."""


ALL = slice(None)


class Minibatch(NamedTuple):
    """The rows of one step. Arrays may be views of shared memory: do not write to them.

    Attributes:
        x: inputs.
        y: labels; `None` for none.
        sample_weight: of shape (rows,) or as the losses broadcast it, for every output; or one for each
            output, in the structure of `y`; or `None`.
        num_samples: number of rows.
    """

    x: Tensors
    y: Tensors
    sample_weight: Tensors
    num_samples: int


class MinibatchPosition(NamedTuple):
    """Position of a minibatch, which seeds its random numbers; `seed=None` for no random numbers."""

    seed: int | None
    partition: int
    epoch: int
    minibatch: int


class Batcher:
    """Converts rows to the model's shapes and types, and splits them into minibatches.

    Args:
        columns: the columns for inputs, labels and weights.
        batch_size: rows per minibatch; the last of an epoch may have fewer.
        worker: index of the worker that trains on them; generators that `preprocess` refers to differ by it.

    Attributes:
        by_minibatch: whether each minibatch is made separately, which may take long.
    """

    def __init__(self, columns: Columns, batch_size: int, worker: int = 0) -> None:
        self._columns = columns
        self._batch_size = batch_size
        self._preprocessor = None if columns.preprocess is None else Preprocessor(columns.preprocess, worker)
        self.by_minibatch = self._preprocessor is not None or any(column.padding for column in columns.all)

    @property
    def preprocess_seconds(self) -> float | None:
        """Seconds that the user's `preprocess` took; `None` without `preprocess`."""
        return None if self._preprocessor is None else self._preprocessor.seconds

    def batches(
        self, table: Table, num_rows: int, position: MinibatchPosition | None = None
    ) -> Iterator[Minibatch]:
        """Yield the minibatches of the `num_rows` rows in `table`, in order.

        Args:
            table: the rows.
            num_rows: number of rows in `table`.
            position: position of the first minibatch; `None` outside of an epoch.
        """
        columns = self._columns
        features = [_form(table, column) for column in columns.features]
        labels = [_form(table, column) for column in columns.labels]
        weights = [None if column is None else _form(table, column) for column in columns.sample_weights]
        whole = _Parts(columns, features, labels, weights)
        if not self.by_minibatch:
            yield from self._slices(whole, num_rows)
            return
        for index, first in enumerate(range(0, num_rows, self._batch_size)):
            rows = slice(first, min(num_rows, first + self._batch_size))
            made = self._minibatch(whole.some(rows), rows.stop - first)
            if self._preprocessor is not None:
                at = position and position._replace(minibatch=position.minibatch + index)
                made = self._preprocessed(self._preprocessor, made, table, rows, at)
            yield made

    def _slices(self, whole: _Parts, num_rows: int) -> Iterator[Minibatch]:
        """Yield minibatches that are views of all rows."""
        features, labels, weight = whole.features(), whole.label_arrays(), whole.weight()
        for first in range(0, num_rows, self._batch_size):
            rows = slice(first, first + self._batch_size)
            yield Minibatch(
                _arrange(self._columns.features, features, rows),
                _arrange(self._columns.labels, labels, rows),
                _some(weight, rows),
                min(self._batch_size, num_rows - first),
            )

    def _minibatch(self, parts: _Parts, num_rows: int) -> Minibatch:
        columns = self._columns
        return Minibatch(
            _arrange(columns.features, parts.features()),
            _arrange(columns.labels, parts.label_arrays()),
            parts.weight(),
            num_rows,
        )

    def _preprocessed(
        self,
        preprocessor: Preprocessor,
        cut: Minibatch,
        table: Table,
        rows: slice,
        position: MinibatchPosition | None,
    ) -> Minibatch:
        """Replace the arrays in `cut` by those that the user's `preprocess` makes of the rows."""
        given = {
            name: as_given(table[column.name][rows])
            for name, column in zip(preprocessor.names, self._columns.raw, strict=True)
        }
        where, rng = "a minibatch", None
        if position is not None:
            where = f"partition {position.partition}, epoch {position.epoch}, minibatch {position.minibatch}"
            if position.seed is not None:
                rng = rng_of(position.seed, position.partition, position.epoch, position.minibatch)
        x, *rest = preprocessor(given, cut.num_samples, rng, where)
        y = rest[0] if rest else cut.y
        weight = rest[1] if len(rest) > 1 else cut.sample_weight
        if rest and self._columns.class_weight is not None and y is not None:
            weight = _product(self._columns.class_weight.weigh(np.asarray(y)), weight)
        return Minibatch(x, y, weight, cut.num_samples)


class _Parts:
    """Inputs, labels and weights of some rows; rows of different lengths are padded."""

    def __init__(
        self,
        columns: Columns,
        features: list[Array | Ragged],
        labels: list[Array | Ragged],
        weights: list[Array | Ragged | None],
    ) -> None:
        self._columns = columns
        self._features = features
        self._labels = labels
        self._weights = weights
        self._longest = self._longest_by_padding()

    def some(self, rows: slice) -> _Parts:
        """Return the part of `rows`."""
        features, labels = ([part[rows] for part in parts] for parts in (self._features, self._labels))
        weights = [None if part is None else part[rows] for part in self._weights]
        return _Parts(self._columns, features, labels, weights)

    def features(self) -> list[Array]:
        pairs = zip(self._columns.features, self._features, strict=True)
        return [
            self._array(column, part, column.padding.value if column.padding else 0) for column, part in pairs
        ]

    def label_arrays(self) -> list[Array]:
        pairs = zip(self._columns.labels, self._labels, strict=True)
        return [self._array(column, part) for column, part in pairs]

    def weight(self) -> Tensors:
        """Return the weights of the rows; where labels are padded, the weights of the steps of each label."""
        columns = self._columns
        weights = [
            None if column is None or part is None else self._array(column, part)
            for column, part in zip(columns.sample_weights, self._weights, strict=True)
        ] or [None]
        if columns.class_weight is not None and columns.labels:
            by_class = columns.class_weight.weigh(self.label_arrays()[0])
            weights = [_product(by_class, weight) for weight in weights]
        if len(weights) == 1 and not any(isinstance(part, Ragged) for part in self._labels):
            return weights[0]
        if len(weights) == 1:
            weights = weights * len(columns.labels)
        triples = zip(columns.labels, self._labels, weights, strict=True)
        own: list[Any] = [self._weight_of(*each) for each in triples]
        # Like `_arrange`, but an output may have no weights.
        if columns.labels[0].key is not None:
            return {str(column.key): part for column, part in zip(columns.labels, own, strict=True)}
        return own if len(own) > 1 else own[0]

    def _weight_of(self, column: Column, part: Array | Ragged, weight: Array | None) -> Array | None:
        if not isinstance(part, Ragged):
            return weight
        # Padding of labels must not count.
        own = self._filled(column, part).astype(np.float32)
        if weight is None:
            return own
        return np.asarray(own * (weight[:, None] if weight.ndim == 1 else weight))

    def _array(self, column: Column, part: Array | Ragged, value: Any = 0) -> Array:
        if not isinstance(part, Ragged):
            return part
        if column.mask:
            return self._filled(column, part).astype(column.numpy_dtype)
        step = column.shape[1:]
        values = part.values.reshape(-1, *step).astype(column.numpy_dtype, copy=False)
        return fill(values, _steps(column, part), self._length(column), value, step)

    def _filled(self, column: Column, part: Ragged) -> Array:
        return filled(_steps(column, part), self._length(column))

    def _length(self, column: Column) -> int:
        if column.padding is None:
            raise ValueError(f"Expected a column with padding. Received: column={column.name!r}")
        return column.padding.length(self._longest[column.padding])

    def _longest_by_padding(self) -> dict[Padding, int]:
        """Return the number of steps of the longest row for each padding."""
        longest: dict[Padding, int] = {}
        columns, parts = [*self._columns.features, *self._columns.labels], [*self._features, *self._labels]
        for weight, its in zip(self._columns.sample_weights, self._weights, strict=True):
            if weight is not None and its is not None:
                columns, parts = [*columns, weight], [*parts, its]
        for column, part in zip(columns, parts, strict=True):
            if column.padding is not None and isinstance(part, Ragged):
                steps = int(_steps(column, part).max(initial=0))
                longest[column.padding] = max(steps, longest.get(column.padding, 0))
        return longest


def _steps(column: Column, part: Ragged) -> npt.NDArray[np.int64]:
    return part.lengths // math.prod(column.shape[1:])


def _form(table: Table, column: Column) -> Array | Ragged:
    rows = table[column.name]
    if isinstance(rows, Ragged):
        return rows
    return rows.reshape(len(rows), *column.shape).astype(column.numpy_dtype, copy=False)


def _product(by_row: Array, other: Any) -> Any:
    """Return weights of rows times weights of rows or of their steps."""
    if other is None:
        return by_row
    return other * by_row.reshape(-1, *(1 for _ in np.shape(other)[1:]))


def _some(weight: Tensors, rows: slice) -> Tensors:
    some: Tensors = map_leaves(lambda array: array[rows], weight)
    return some


def _arrange(columns: tuple[Column, ...], arrays: list[Array], rows: slice = ALL) -> Tensors:
    if not columns:
        return None
    if columns[0].key is not None:
        return {str(column.key): array[rows] for column, array in zip(columns, arrays, strict=True)}
    if len(columns) == 1:
        return arrays[0][rows]
    return [array[rows] for array in arrays]
