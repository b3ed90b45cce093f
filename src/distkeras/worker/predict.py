"""Prediction in a Spark task: models loaded once a Python process, rows in minibatches, answers as Arrow."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.worker.answers import Answer, to_arrow
from distkeras.worker.columns import Columns, TensorSpec
from distkeras.worker.decode import Table, decode
from distkeras.worker.minibatch import Cutter
from distkeras.worker.rows import column_of, equal_lengths, without_vectors
from distkeras.worker.task import prepare_process

if TYPE_CHECKING:
    import keras

    from distkeras.model.saved import SavedModel

Array = npt.NDArray[Any]

KEPT_MODELS = 4
"""Predictions whose models a Python process keeps for later tasks."""

SMALLEST_PADDED = 16
"""Rows to which a smaller minibatch is filled up, where each size is compiled by itself."""


@dataclass(frozen=True)
class Prediction:
    """What a Python worker is told.

    Attributes:
        models: of the same inputs and outputs; several give the mean of their outputs.
        backend: of Keras.
        threads: cores that the worker may use.
        inputs: of the models.
        columns: the user's name of each input's column, for errors; no name stands twice.
        answers: how each output becomes a column.
        batch_size: rows that a model takes at once.
        key: by which a Python process keeps the models.
    """

    models: tuple[SavedModel, ...]
    backend: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    columns: tuple[str, ...]
    answers: tuple[Answer, ...]
    batch_size: int
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ".".join(model.digest for model in self.models))


def activation_bytes(model: keras.Model) -> int:
    """Return what the outputs of all layers to one row take, as far as they are known."""
    import keras

    total = 0
    for layer in model._flatten_layers():
        for tensor in keras.tree.flatten(getattr(layer, "output", None)):
            if tensor is not None:
                total += 4 * math.prod(length or 1 for length in tensor.shape[1:])
    return total


class Predictor:
    """The models of a prediction, in a Python process that is ready for Keras.

    Args:
        prediction: what to predict.
    """

    def __init__(self, prediction: Prediction) -> None:
        prepare_process(prediction.backend, prediction.threads)
        self._prediction = prediction
        self._models = _loaded(prediction)

    def __call__(self, columns: list[pa.Array], *, partition: int = 0, first_row: int = 0) -> pa.Array:
        """Return the answers to the rows of `columns`: an array, or for several outputs a struct of them.

        Args:
            columns: one for each input, as Spark sends it.
            partition: where the rows come from, for errors.
            first_row: number of rows of the partition that came before, for errors.

        Raises:
            ValueError: a null, a row of another length than the model takes, or another number of columns.
        """
        names = list(self._prediction.columns)
        if len(columns) != len(names):
            raise ValueError(
                f"Expected {len(names)} column(s), one for each input of the model: {names}. "
                f"Received: {len(columns)} column(s)"
            )
        columns = [without_vectors(column) for column in columns]
        batch = pa.RecordBatch.from_arrays(columns, names)
        self._check_nulls(batch, partition, first_row)
        groups = equal_lengths(batch, self._prediction.inputs)
        if len(groups) == 1:
            answers = self._answers(batch, partition, first_row)
        else:
            parts = [self._answers(batch.take(pa.array(rows)), partition, first_row) for rows in groups]
            place = pa.array(np.argsort(np.concatenate(groups)))
            answers = [pa.concat_arrays(part).take(place) for part in zip(*parts, strict=True)]
        if len(answers) == 1:
            return answers[0]
        return pa.StructArray.from_arrays(answers, [answer.name for answer in self._prediction.answers])

    def _check_nulls(self, batch: pa.RecordBatch, partition: int, first_row: int) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count:
                row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
                raise ValueError(
                    f"Column {name!r}, partition {partition}, row {first_row + row}: found a null, expected "
                    f"a value. Drop these rows with df.na.drop(subset=[{name!r}]), or fill them."
                )

    def _answers(self, batch: pa.RecordBatch, partition: int, first_row: int) -> list[pa.Array]:
        """Return the answers of every output to rows that are all of one length."""
        prediction, num_rows = self._prediction, batch.num_rows
        if num_rows == 0:
            return [answer.empty() for answer in prediction.answers]
        features = tuple(
            column_of(spec, name, column)
            for spec, name, column in zip(prediction.inputs, prediction.columns, batch.columns, strict=True)
        )
        columns = Columns(features)
        table = decode(batch, columns, partition=partition, first_row=first_row)
        cutter, size = Cutter(columns, prediction.batch_size), prediction.batch_size
        chunks = []
        for first in range(0, num_rows, size):
            some = {name: rows[first : first + size] for name, rows in table.items()}
            chunks.append(self._outputs(cutter, some, min(size, num_rows - first)))
        outputs = [
            np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*chunks, strict=True)
        ]
        if len(outputs) != len(prediction.answers):
            raise ValueError(
                f"Expected {len(prediction.answers)} output(s) of the model. Received: {len(outputs)}"
            )
        return [to_arrow(output, answer) for output, answer in zip(outputs, prediction.answers, strict=True)]

    def _outputs(self, cutter: Cutter, table: Table, num_rows: int) -> list[Array]:
        """Return every output of one minibatch, the mean over the models."""
        import keras

        padded = self._padded(num_rows)
        if padded > num_rows:
            table = {name: _filled(rows, padded) for name, rows in table.items()}
        (minibatch,) = cutter.cut(table, padded)
        members = [keras.tree.flatten(model.predict_on_batch(minibatch.x)) for model in self._models]
        outputs = [_mean([np.asarray(output) for output in each]) for each in zip(*members, strict=True)]
        return [output[:num_rows] for output in outputs]

    def _padded(self, num_rows: int) -> int:
        """Return the rows to which a minibatch is filled up: JAX compiles each size by itself."""
        size = self._prediction.batch_size
        if self._prediction.backend != "jax" or num_rows == size:
            return num_rows
        return min(size, max(SMALLEST_PADDED, 1 << (num_rows - 1).bit_length()))


_kept: OrderedDict[str, list[keras.Model]] = OrderedDict()


def _loaded(prediction: Prediction) -> list[keras.Model]:
    """Return the models of `prediction`, those of an earlier task of this process if they are still kept."""
    if prediction.key not in _kept:
        _kept[prediction.key] = [model.open() for model in prediction.models]
    _kept.move_to_end(prediction.key)
    while len(_kept) > KEPT_MODELS:
        _kept.popitem(last=False)
    return _kept[prediction.key]


def _filled(rows: Array, num_rows: int) -> Array:
    """Repeat the last row: other values could make a model slow (NaN) or fail."""
    return np.concatenate([rows, np.repeat(rows[-1:], num_rows - len(rows), axis=0)])


def _mean(outputs: list[Array]) -> Array:
    if len(outputs) == 1:
        return outputs[0]
    mean: Array = np.mean(outputs, axis=0, dtype=np.result_type(*outputs, np.float32))
    return mean


def predict_stream(
    prediction: Prediction, batches: Iterator[pa.StructArray], partition: int
) -> Iterator[pa.Array]:
    """Yield the answers to the rows of `batches`, structs with a field for every input.

    The rows are cut into minibatches as Keras would cut the partition, whatever pieces they arrive in, and
    each minibatch is answered by itself, so that large outputs of many rows never lie in memory together.
    Sequences stay in the pieces in which they arrive: those of one length are found there.
    """
    predictor, arrived = Predictor(prediction), 0
    if all(spec.shape is not None and None not in spec.shape for spec in prediction.inputs):
        batches = in_minibatches(batches, prediction.batch_size)
    for batch in batches:
        yield predictor(batch.flatten(), partition=partition, first_row=arrived)
        arrived += len(batch)


def in_minibatches(batches: Iterator[pa.Array], size: int) -> Iterator[pa.Array]:
    """Yield the rows of `batches` in pieces of `size` rows; the last may have fewer."""
    rest: pa.Array | None = None
    for batch in batches:
        rows = batch if rest is None else pa.concat_arrays([rest, batch])
        whole = len(rows) // size * size
        for first in range(0, whole, size):
            yield rows.slice(first, size)
        rest = rows.slice(whole) if whole < len(rows) else None
    if rest is not None:
        yield rest
