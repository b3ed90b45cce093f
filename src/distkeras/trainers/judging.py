"""`evaluate` and `predict`: with the arguments of `keras.Model`'s methods, computed on Spark."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import keras
import numpy.typing as npt

from distkeras.cluster.arrays import Roles
from distkeras.cluster.description import about, described
from distkeras.cluster.evaluation import evaluate as evaluate_frame
from distkeras.cluster.tables import as_frame
from distkeras.cluster.validate import Names, Weights
from distkeras.model.randomness import advance_seeds
from distkeras.predictors import ModelPredictor
from distkeras.trainers.checks import check_model, check_positive_integer
from distkeras.trainers.data_of_fit import Data, build, data_of, folders, limited, symbolic, whole_executions
from distkeras.worker.feeding import Feeding
from distkeras.worker.output_columns import from_arrow
from distkeras.worker.signature import model_signature

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Callbacks: TypeAlias = Sequence[keras.callbacks.Callback] | keras.callbacks.CallbackList | None


def evaluate(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    verbose: int | str = "auto",
    sample_weight: Any = None,
    steps: int | None = None,
    callbacks: Callbacks = None,
    return_dict: bool = False,
    *,
    num_workers: int = 1,
    features_col: Names = "features",
    label_col: Names | None = "label",
    sample_weight_col: Weights = None,
    custom_objects: dict[str, Any] | None = None,
    preprocess: Any = None,
    pad_to: Any = None,
) -> Any:
    """Return the loss and the compiled metrics over all rows, exactly, computed on Spark.

    Args:
        model: a compiled Keras model.
        x: as in `fit`.
        y: labels, with arrays.
        batch_size: rows in a minibatch. Default: that of the dataset, else 32.
        verbose: 0 for silent; else Keras's progress bar shows the result.
        sample_weight: weights of the rows, with arrays.
        steps: minibatches to evaluate, of arrays and datasets. Default: all.
        callbacks: Keras's callbacks. They see the batches, one after the other, once all are computed.
        return_dict: return a dict by name, and not a list in Keras's order (one number, if there is one).
        num_workers: number of Spark tasks.
        features_col: as in `DistributedTrainer`, like all arguments below.
        label_col: column of the labels, for DataFrames and tables.
        sample_weight_col: column of the weights, for DataFrames and tables.
        custom_objects: custom objects of the model.
        preprocess: function that makes each minibatch.
        pad_to: lengths to pad to.

    Raises:
        ValueError: the model is not compiled, or the data does not fit it.
        TypeError: `model` is no Keras model, or the data has an unknown type.
    """
    check_model("model", model)
    if not model.compiled:
        raise ValueError(
            "Expected a compiled model: call `model.compile(optimizer, loss, metrics)` first. "
            f"Received: {model.name!r}, which is not compiled"
        )
    check_positive_integer("num_workers", num_workers)
    with folders(1) as (folder,), about(f"evaluation of {model.name!r}"):
        steps = whole_executions(model, steps)
        data = data_of(x, y, sample_weight, folder=folder, steps=steps, steps_argument="steps")
        size = batch_size or data.batch_size or 32
        data = limited(data, steps, size, "steps")
        build(model, data.first)
        listed = _callbacks(model, callbacks, verbose, data.num_batches(size))
        listed.on_test_begin()
        model.stop_evaluating = False
        with as_frame(data.rows, Roles(features_col, label_col, sample_weight_col), num_workers) as (
            frame,
            roles,
        ):
            logs = evaluate_frame(
                model,
                frame,
                roles,
                num_partitions=num_workers,
                batch_size=size,
                feeding=Feeding(preprocess, pad_to, not_finite="warn"),
                custom_objects=custom_objects,
                on_minibatch=_shown(model, listed, data.num_batches(size)),
            )
        listed.on_test_end(logs)
    return logs if return_dict else model._flatten_metrics_in_order(logs)


def predict(
    model: keras.Model,
    x: Any,
    batch_size: int | None = None,
    verbose: int | str = "auto",
    steps: int | None = None,
    callbacks: Callbacks = None,
    *,
    num_workers: int = 1,
    features_col: Names = "features",
    custom_objects: dict[str, Any] | None = None,
    preprocess: Any = None,
    pad_to: Any = None,
) -> Any:
    """Return the outputs of `model` for all rows of `x`, in their order, computed on Spark.

    The outputs must fit in this process's memory. `distkeras.predictors.ModelPredictor` adds them to a
    DataFrame instead.

    Args:
        model: a Keras model; it need not be compiled.
        x: as in `fit`; labels in it are not used.
        batch_size: rows in a minibatch. Default: that of the dataset, else 32.
        verbose: 0 for silent; else Keras's progress bar.
        steps: minibatches to predict, of arrays and datasets. Default: all.
        callbacks: Keras's callbacks. They see the batches, with their outputs, once all are computed.
        num_workers: number of Spark tasks.
        features_col: as in `DistributedTrainer`, like all arguments below.
        custom_objects: custom objects of the model.
        preprocess: function that makes each minibatch.
        pad_to: lengths to pad to.

    Returns:
        An array of shape (rows, ...), or a structure of them, like the model's outputs.

    Raises:
        ValueError: the data does not fit the model.
        TypeError: `model` is no Keras model, or the data has an unknown type.
    """
    check_model("model", model)
    check_positive_integer("num_workers", num_workers)
    with folders(1) as (folder,), about(f"prediction with {model.name!r}"):
        steps = whole_executions(model, steps)
        data = data_of(x, folder=folder, steps=steps, steps_argument="steps", one_file=num_workers == 1)
        size = batch_size or data.batch_size or 32
        data = limited(data, steps, size, "steps")
        build(model, data.first, labelled=False)
        _, outputs = model_signature(model)
        names = [f"output {index}" for index in range(len(outputs))]
        with as_frame(data.rows, Roles(features_col, None), num_workers) as (frame, roles):
            predictor = ModelPredictor(
                model,
                roles.features_col,
                names if len(names) > 1 else names[0],
                batch_size=size,
                custom_objects=custom_objects,
                preprocess=preprocess,
                pad_to=pad_to,
            )
            # One after another in the order of the partitions, as they are collected.
            with described(frame.sparkSession, "computes the outputs"):
                table = predictor.predict(frame.coalesce(num_workers)).select(*names).toArrow()
    columns = [from_arrow(table.column(name), spec.shape) for name, spec in zip(names, outputs, strict=True)]
    structure = _structure(model, data) if len(columns) > 1 else None
    num_rows = len(columns[0])
    advance_seeds(model, math.ceil(num_rows / size))
    listed = _callbacks(model, callbacks, verbose, math.ceil(num_rows / size))
    end = _replay(model, listed, columns, structure, size)
    return _packed([column[:end] for column in columns], structure)


def _shown(model: Any, callbacks: Any, num_batches: int | None) -> Callable[[int, Any], bool]:
    """Return a function that shows the batches of an evaluation to the callbacks, in executions.

    It returns False when one of them has stopped the evaluation.
    """
    together = getattr(model, "steps_per_execution", 1)

    def show(number: int, logs: dict[str, float]) -> bool:
        if number % together == 0:
            callbacks.on_test_batch_begin(number)
        if (number + 1) % together == 0 or number + 1 == num_batches:
            # The last execution counts as whole, as in Keras.
            callbacks.on_test_batch_end(number - number % together + together - 1, dict(logs))
        return not model.stop_evaluating

    return show


def _replay(model: Any, callbacks: Any, columns: list[Array], structure: Any, size: int) -> int:
    """Show the batches to the callbacks; return the number of rows up to where one of them stopped."""
    model.stop_predicting = False
    callbacks.on_predict_begin()
    end = 0
    for first, last, rows in _executions(model, len(columns[0]), size):
        callbacks.on_predict_batch_begin(first)
        shown = _packed([column[end:rows] for column in columns], structure)
        end = rows
        callbacks.on_predict_batch_end(last, {"outputs": shown})
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
    return end


def _executions(model: Any, num_rows: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield the first and the last batch of each execution, and the number of rows up to its end.

    The last execution counts as whole, as in Keras.
    """
    total = math.ceil(num_rows / size)
    together = getattr(model, "steps_per_execution", 1)
    for first in range(0, total, together):
        yield first, first + together - 1, min(num_rows, (first + together) * size)


def _callbacks(model: Any, given: Callbacks, verbose: int | str, steps: int | None) -> Any:
    if isinstance(given, keras.callbacks.CallbackList):
        return given
    return keras.callbacks.CallbackList(
        given, add_progbar=verbose != 0, verbose=verbose, epochs=1, steps=steps, model=model
    )


def _structure(model: Any, data: Data) -> Any:
    """Return a structure like the outputs of the model."""
    if getattr(model, "inputs", None):
        return getattr(model, "_functional", model).output
    if data.first is None:
        raise ValueError(
            "Expected arrays, or a functional model: the structure of the outputs of a model that is built "
            f"by its first rows is not known. Received: model {model.name!r}"
        )
    return model.compute_output_spec(keras.tree.map_structure(symbolic, data.first[0]))


def _packed(columns: list[Array], structure: Any) -> Any:
    return columns[0] if structure is None else keras.tree.pack_sequence_as(structure, columns)
