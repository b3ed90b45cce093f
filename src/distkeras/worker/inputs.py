"""Turn the Arrow columns of a prediction into the inputs of a model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from distkeras.worker.columns import RAW, Column, Columns
from distkeras.worker.decode import Table, decode
from distkeras.worker.minibatch import Batcher, MinibatchPosition, Tensors
from distkeras.worker.prediction import Prediction
from distkeras.worker.rows import column_of, sequences_of, without_vectors


class Inputs:
    """Makes minibatches of the inputs of a model.

    Args:
        prediction: the settings of the prediction.
    """

    def __init__(self, prediction: Prediction) -> None:
        self._prediction = prediction
        self._made: Batcher | None = None
        if prediction.preprocess is not None:
            self._raw = tuple(Column(name, (1,), RAW) for name in prediction.columns)
            columns = Columns((), raw=self._raw, preprocess=prediction.preprocess)
            self._made = Batcher(columns, prediction.batch_size)

    def batch(self, columns: list[pa.Array], partition: int, first_row: int) -> pa.RecordBatch:
        """Return `columns`, as Spark sends them, by their names.

        Raises:
            ValueError: a null, or another number of columns.
        """
        names = list(self._prediction.columns)
        if len(columns) != len(names):
            what = "one for each input of the model" if self._made is None else "those of `features_col`"
            raise ValueError(
                f"Expected {len(names)} column(s), {what}: {names}. Received: {len(columns)} column(s)"
            )
        batch = pa.RecordBatch.from_arrays([without_vectors(column) for column in columns], names)
        self._check_nulls(batch, partition, first_row)
        return batch

    def minibatches(
        self, batch: pa.RecordBatch, partition: int, first_row: int
    ) -> Iterator[tuple[Tensors, int]]:
        """Yield the inputs of minibatches, from rows that can be stacked, with the number of their rows."""
        size = self._prediction.batch_size
        if not batch.num_rows:
            return
        if self._made is None:
            columns = self._columns(batch)
            batcher = Batcher(columns, size)
        else:
            columns, batcher = Columns((), raw=self._raw), self._made
        table = decode(batch, columns, partition=partition, first_row=first_row)
        for first in range(0, batch.num_rows, size):
            position = MinibatchPosition(None, partition, 0, (first_row + first) // size)
            some: Table = {name: rows[first : first + size] for name, rows in table.items()}
            for minibatch in batcher.batches(some, min(size, batch.num_rows - first), position):
                yield minibatch.x, minibatch.num_samples

    def _columns(self, batch: pa.RecordBatch) -> Columns:
        """Return the form of the rows of `batch`, which can be stacked or are padded."""
        prediction = self._prediction
        paddings = prediction.paddings or (None,) * batch.num_columns
        features = tuple(
            column_of(spec, name, column) if padding is None else sequences_of(spec, name, padding)
            for spec, name, column, padding in zip(
                prediction.fed, prediction.columns, batch.columns, paddings, strict=True
            )
        )
        return Columns(features).with_masks(prediction.inputs)

    def _check_nulls(self, batch: pa.RecordBatch, partition: int, first_row: int) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise ValueError(
                    f"Column {name!r}, partition {partition}, row {first_row + row}: found a null, expected "
                    f"a value. Drop these rows with df.na.drop(subset=[{name!r}]), or fill them."
                )
