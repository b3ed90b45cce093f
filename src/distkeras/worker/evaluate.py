"""Loss and metrics over rows in many partitions: the metric states of the partitions add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.worker.environment import prepare_process
from distkeras.worker.feed import Feed
from distkeras.worker.metric_states import Sums, assign_states, states_over
from distkeras.worker.minibatch import Batcher, Minibatch
from distkeras.worker.payload import Openable
from distkeras.worker.ragged import Ragged
from distkeras.worker.step_buffer import map_leaves

if TYPE_CHECKING:
    import keras

    from distkeras.model.spec import ModelSpec
    from distkeras.worker.columns import Column, Columns

States = list[list[float]]
"""Values of the variables of all metrics, each flattened."""


@dataclass(frozen=True)
class Evaluation:
    """The settings of an evaluation.

    Attributes:
        model: architecture, weights and compile settings.
        columns: how rows become the model's inputs and labels.
        batch_size: rows per minibatch.
        each: whether the states of each minibatch are wanted too.
    """

    model: ModelSpec
    columns: Columns
    batch_size: int
    each: bool = False


@dataclass(frozen=True)
class EvaluationTask:
    """An evaluation as it travels, with the settings that a process needs before it opens it.

    Attributes:
        evaluation: an `Evaluation`.
        backend: Keras backend.
        threads: cores that a worker may use.
    """

    evaluation: Openable
    backend: str
    threads: int


class Evaluated(TypedDict):
    """What an evaluation finds in the rows of one partition, plain JSON.

    Attributes:
        states: the states of the metrics after the rows; empty without rows.
        each: the states of each minibatch alone, if they are wanted.
        last: the numbers that `test_step` reports of the last minibatch.
    """

    states: States
    each: list[States]
    last: dict[str, float]


def partial_states(sealed: EvaluationTask, partition: int, batches: Iterator[pa.RecordBatch]) -> Evaluated:
    """Return the states of the metrics after the rows of one partition."""
    prepare_process(sealed.backend, sealed.threads)
    from distkeras.model.spec import deserialize_model

    evaluation: Evaluation = sealed.evaluation.open()
    model = deserialize_model(evaluation.model)
    with Feed(
        batches,
        evaluation.columns,
        batch_size=evaluation.batch_size,
        partition=partition,
        num_epoch=1,
        seed=None,
    ) as feed:
        found: Evaluated = {"states": [], "each": [], "last": {}}

        def seen(states: list[Sums], logs: dict[str, Any]) -> None:
            found["last"] = {name: float(value) for name, value in logs.items() if np.size(value) == 1}
            if evaluation.each:
                found["each"].append(_lists(states))

        found["states"] = _lists(states_over(model, feed.epoch(0), seen))
    return found


def added(one: States, other: States) -> States:
    """Return the sum of two states; an empty one is of no rows."""
    if not one:
        return other
    return _lists([np.add(*each) for each in zip(one, other, strict=True)])


def _lists(states: Sequence[Sums]) -> States:
    return [np.ravel(sums).tolist() for sums in states]


def together(
    model: keras.Model, columns: Columns, batch_size: int, parts: Sequence[States]
) -> dict[str, float]:
    """Return loss and metrics of all rows, by name; a metric of several values is an array.

    For every Keras metric the state is a sum over rows: the sum of the partitions' states is the state after
    all rows.

    Args:
        model: a compiled model like the one evaluated; its metrics are changed.
        columns: the columns of the evaluation.
        batch_size: rows per minibatch of the evaluation.
        parts: the states of each partition; empty for a partition without rows.
    """
    _build_metrics(model, columns, batch_size)
    _add_up(model, parts)
    return _numbers(model.get_metrics_result())


def _numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return results of metrics as `keras.Model.evaluate` does: numbers, or arrays of several."""
    import keras

    numbers: dict[str, Any] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(value)
        else:
            array = keras.ops.convert_to_numpy(value)
            numbers[name] = array if array.ndim else float(array)
    return numbers


def set_metrics(
    model: keras.Model, columns: Columns, batch_size: int, parts: Sequence[Sequence[npt.NDArray[Any]]]
) -> None:
    """Set the metrics of `model` to the sum of the states in `parts`.

    Args:
        model: a compiled model.
        columns: the columns it was trained on.
        batch_size: rows per minibatch.
        parts: the states of each worker; empty states are skipped.
    """
    _build_metrics(model, columns, batch_size)
    _add_up(model, parts)


def set_metric_states(model: keras.Model, columns: Columns, batch_size: int, states: bytes) -> None:
    """Set the metrics of `model` to states that windows, epochs or evaluations have brought.

    Args:
        model: a compiled model.
        columns: the columns of the rows.
        batch_size: rows per minibatch.
        states: see `distkeras.worker.metric_states.packed`.

    Raises:
        ValueError: the states are of other metrics.
    """
    _build_metrics(model, columns, batch_size)
    assign_states(model, states)


def _build_metrics(model: keras.Model, columns: Columns, batch_size: int) -> None:
    """Let the metrics of `model` create their variables, which they do at the first minibatch."""
    from distkeras.worker.replica import symbolic

    minibatch = _of_zeros(columns, batch_size)
    model._symbolic_build(data_batch=symbolic((minibatch.x, minibatch.y, minibatch.sample_weight)))


def _add_up(model: keras.Model, parts: Sequence[Sequence[Any]]) -> None:
    """Set the variables of the metrics to the sums of the states in `parts`."""
    sums = [sum(np.asarray(state) for state in each) for each in zip(*filter(None, parts), strict=True)]
    for variable, total in zip(model.metrics_variables, sums, strict=True):
        variable.assign(np.reshape(total, variable.shape).astype(variable.dtype))


def _of_zeros(columns: Columns, num_rows: int) -> Minibatch:
    """Return a minibatch of `num_rows` rows of zeros, like those that the model gets."""
    table = {name: _zeros(column, num_rows) for name, column in columns.by_name.items()}
    (zeros,) = Batcher(replace(columns, preprocess=None), num_rows).batches(table, num_rows)
    like = partial(_zeros_like, num_rows=num_rows)
    made = () if columns.preprocess is None else map_leaves(like, columns.preprocess.made)
    return Minibatch(*made, *zeros[len(made) :])


def _zeros(column: Column, num_rows: int) -> npt.NDArray[Any] | Ragged:
    zeros = np.zeros((num_rows, column.width), column.numpy_dtype)
    return zeros if column.padding is None else Ragged(pa.array(zeros.tolist()))


def _zeros_like(like: npt.NDArray[Any], num_rows: int) -> npt.NDArray[Any]:
    shape = (num_rows, *like.shape[1:])
    return np.full(shape, "", object) if like.dtype.hasobject else np.zeros(shape, like.dtype)
