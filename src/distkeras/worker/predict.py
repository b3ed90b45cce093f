"""Prediction in a Spark task: load models once per Python process, predict minibatches, return Arrow."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.worker.compilable import compilable
from distkeras.worker.environment import prepare_process
from distkeras.worker.inputs import Inputs
from distkeras.worker.minibatch import Tensors
from distkeras.worker.output_columns import OutputColumn, to_arrow
from distkeras.worker.prediction import Prediction
from distkeras.worker.prefetch import Prefetch
from distkeras.worker.rows import equal_lengths, rows_at_once
from distkeras.worker.step_buffer import map_leaves
from distkeras.worker.tensor_spec import fixed_batch

if TYPE_CHECKING:
    import keras

    from distkeras.model.saved import SavedModel

Array = npt.NDArray[Any]

CACHED_MODELS = 4
"""Number of predictions whose models a Python process caches for later tasks."""

SMALLEST_PADDED = 16
"""Number of rows to which a smaller minibatch is padded, if each size is compiled separately."""


def activation_bytes(model: keras.Model) -> int:
    """Return the known bytes of the outputs of all layers for one row."""
    import keras

    total = 0
    for layer in model._flatten_layers():
        for tensor in keras.tree.flatten(getattr(layer, "output", None)):
            if tensor is not None:
                total += 4 * math.prod(length or 1 for length in tensor.shape[1:])
    return total


class Predictor:
    """The models of a prediction, in a Python process prepared for Keras.

    Args:
        prediction: the settings of the prediction.
    """

    def __init__(self, prediction: Prediction) -> None:
        prepare_process(prediction.backend, prediction.threads)
        self._prediction = prediction
        self._models = _loaded(prediction)
        self._inputs = Inputs(prediction)

    def __call__(self, columns: list[pa.Array], *, partition: int = 0, first_row: int = 0) -> pa.Array:
        """Return predictions for the rows of `columns`: an array, or for several outputs a struct of them.

        Args:
            columns: one for each input, as Spark sends it.
            partition: index of the partition, for errors.
            first_row: number of earlier rows of the partition, for errors.

        Raises:
            ValueError: a null, a row of another length than the model takes, or another number of columns.
        """
        size = rows_at_once(columns, self._prediction.batch_size)
        parts = [
            self._piece([column.slice(first, size) for column in columns], partition, first_row + first)
            for first in range(0, max(1, len(columns[0]) if columns else 0), size)
        ]
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)

    def _piece(self, columns: list[pa.Array], partition: int, first_row: int) -> pa.Array:
        batch = self._inputs.batch(columns, partition, first_row)
        groups = equal_lengths(batch, self._prediction.open)
        if len(groups) == 1:
            return self._joined(self._output_columns(self._inputs.minibatches(batch, partition, first_row)))
        parts = [
            self._output_columns(self._inputs.minibatches(batch.take(pa.array(rows)), partition, first_row))
            for rows in groups
        ]
        place = pa.array(np.argsort(np.concatenate(groups)))
        return self._joined([pa.concat_arrays(part).take(place) for part in zip(*parts, strict=True)])

    def prefetched(self, batches: Iterator[pa.StructArray], partition: int) -> Iterator[pa.Array]:
        """Yield the predictions for each of `batches`; a thread prepares inputs ahead."""

        def made() -> Iterator[list[tuple[Tensors, int]]]:
            arrived = 0
            for columns in batches:
                batch = self._inputs.batch(columns.flatten(), partition, arrived)
                yield list(self._inputs.minibatches(batch, partition, arrived))
                arrived += len(columns)

        prefetch = Prefetch(made())
        try:
            for minibatches in prefetch:
                yield self._joined(self._output_columns(minibatches))
        finally:
            prefetch.stop()

    def _joined(self, output_columns: list[pa.Array]) -> pa.Array:
        if len(output_columns) == 1:
            return output_columns[0]
        return pa.StructArray.from_arrays(
            output_columns, [output_column.name for output_column in self._prediction.output_columns]
        )

    def _output_columns(self, minibatches: Iterable[tuple[Tensors, int]]) -> list[pa.Array]:
        """Return the predictions of every output."""
        prediction = self._prediction
        chunks = [self._outputs(x, num_rows) for x, num_rows in minibatches]
        if not chunks:
            return [output_column.empty() for output_column in prediction.output_columns]
        if len(chunks[0]) != len(prediction.output_columns):
            raise ValueError(
                f"Expected {len(prediction.output_columns)} output(s) of the model. "
                f"Received: {len(chunks[0])}"
            )
        return [
            _output_of(parts, output_column)
            for parts, output_column in zip(zip(*chunks, strict=True), prediction.output_columns, strict=True)
        ]

    def _outputs(self, x: Tensors, num_rows: int) -> list[Array]:
        """Return every output for one minibatch, averaged over the models."""
        import keras

        padded = self._padded(num_rows)
        if padded > num_rows:
            x = map_leaves(lambda rows: _filled(rows, padded), x)
        members = [keras.tree.flatten(model.predict_on_batch(compilable(model, x))) for model in self._models]
        outputs = [_mean([np.asarray(output) for output in each]) for each in zip(*members, strict=True)]
        return [output[:num_rows] for output in outputs]

    def _padded(self, num_rows: int) -> int:
        """Return the number of rows to which a minibatch is padded: JAX compiles each size separately.

        A model with a fixed batch size takes no other.
        """
        size = self._prediction.batch_size
        if fixed_batch(self._prediction.inputs) is not None:
            return size
        if self._prediction.backend != "jax" or num_rows == size:
            return num_rows
        return min(size, max(SMALLEST_PADDED, 1 << (num_rows - 1).bit_length()))


def _output_of(parts: Sequence[Array], output_column: OutputColumn) -> pa.Array:
    """Return one output of all minibatches; minibatches of padded rows may differ in length."""
    if len({part.shape[1:] for part in parts}) > 1:
        return pa.concat_arrays([to_arrow(part, output_column) for part in parts])
    return to_arrow(np.concatenate(parts) if len(parts) > 1 else parts[0], output_column)


_model_cache: OrderedDict[str, list[keras.Model]] = OrderedDict()


def _loaded(prediction: Prediction) -> list[keras.Model]:
    """Return the models of `prediction`, cached by an earlier task of this process or newly loaded."""
    key = prediction.models.name
    if key not in _model_cache:
        saved: tuple[SavedModel, ...] = prediction.models.open()
        _model_cache[key] = [model.open() for model in saved]
    _model_cache.move_to_end(key)
    while len(_model_cache) > CACHED_MODELS:
        _model_cache.popitem(last=False)
    return _model_cache[key]


def _filled(rows: Array, num_rows: int) -> Array:
    """Pad `rows` with the last row: other values could make a model slow (NaN) or fail."""
    return np.concatenate([rows, np.repeat(rows[-1:], num_rows - len(rows), axis=0)])


def _mean(outputs: list[Array]) -> Array:
    if len(outputs) == 1:
        return outputs[0]
    mean: Array = np.mean(outputs, axis=0, dtype=np.result_type(*outputs, np.float32))
    return mean


def predict_stream(
    prediction: Prediction, batches: Iterator[pa.StructArray], partition: int
) -> Iterator[pa.Array]:
    """Yield predictions for the rows of `batches`, structs with a field for every input.

    The rows are split into the minibatches that Keras would use for the partition, whatever the sizes of the
    arriving batches. Each minibatch is predicted separately, so that large outputs of many rows are never in
    memory together. Sequences keep the arriving batches, and rows of equal length are grouped within these.
    """
    predictor, arrived = Predictor(prediction), 0
    if all(spec.shape is not None and None not in spec.shape for spec in prediction.open):
        batches = in_minibatches(batches, prediction.batch_size)
    if prediction.preprocess is not None:
        yield from predictor.prefetched(batches, partition)
        return
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
