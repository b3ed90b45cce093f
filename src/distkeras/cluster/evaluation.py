"""Loss and metrics of a Keras model over a DataFrame."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.arrays import Roles
from distkeras.cluster.batches import limited_batches
from distkeras.cluster.data import Prepared, prepare
from distkeras.cluster.delivery import delivered, localized
from distkeras.cluster.description import described
from distkeras.cluster.resources import threads_of
from distkeras.cluster.shipping import carried
from distkeras.cluster.stage import row_type
from distkeras.model.losses import loss_names
from distkeras.model.process import backend_name
from distkeras.model.spec import serialize_model
from distkeras.worker.evaluate import (
    Evaluated,
    Evaluation,
    EvaluationTask,
    States,
    added,
    partial_states,
    together,
)
from distkeras.worker.feeding import Feeding
from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import fixed_batch

if TYPE_CHECKING:
    import keras
    from pyspark.sql import DataFrame

OnMinibatch: TypeAlias = "Callable[[int, dict[str, float]], bool]"


def evaluate(
    model: keras.Model,
    dataframe: DataFrame,
    roles: Roles,
    *,
    num_partitions: int = 1,
    batch_size: int = 256,
    feeding: Feeding = Feeding(),  # noqa: B008 (frozen)
    custom_objects: Mapping[str, Any] | None = None,
    on_minibatch: OnMinibatch | None = None,
) -> dict[str, float]:
    """Return the loss and the compiled metrics by name, as `model.evaluate` would compute them on all rows.

    Args:
        model: a compiled model.
        dataframe: the rows.
        roles: its columns.
        num_partitions: number of Spark tasks; at most the number of rows.
        batch_size: rows of a minibatch, unless the model fixes the batch size.
        feeding: options that make minibatches from rows; all rows are used.
        custom_objects: as in `DistributedTrainer`.
        on_minibatch: receives loss and metrics up to and with each minibatch, in order, once all rows are
            evaluated. If it returns False, the evaluation ends with that minibatch.

    Raises:
        ValueError, TypeError: the data does not fit the model, or there are no rows.
    """
    with described(dataframe.sparkSession, "counts the first rows"):
        some = dataframe.limit(num_partitions).count()
    inputs, outputs = model_signature(model)
    batch_size = fixed_batch(inputs) or batch_size
    prepared = prepare(
        dataframe,
        roles,
        inputs=inputs,
        outputs=outputs,
        loss=loss_names(model, None),
        num_workers=max(1, some),
        batch_size=batch_size,
        feeding=feeding,
    )
    return evaluate_prepared(model, prepared, batch_size, custom_objects, on_minibatch)


def evaluate_prepared(
    model: keras.Model,
    prepared: Prepared,
    batch_size: int,
    custom_objects: Mapping[str, Any] | None = None,
    on_minibatch: OnMinibatch | None = None,
) -> dict[str, float]:
    """Return the loss and the compiled metrics of `model` on prepared rows, as `evaluate`.

    Numbers that the model's own `test_step` adds to them are those of the last minibatch, as in Keras.

    Args:
        model: a compiled model.
        prepared: the rows, from `prepare`.
        batch_size: rows of a minibatch.
        custom_objects: as in `DistributedTrainer`.
        on_minibatch: as in `evaluate`.
    """
    spark = prepared.frame.sparkSession
    evaluation = Evaluation(
        serialize_model(model, custom_objects=custom_objects),
        prepared.columns,
        batch_size,
        each=on_minibatch is not None,
    )
    with (
        described(spark, "evaluates the model"),
        limited_batches(spark),
        delivered(spark, evaluation) as payload,
    ):
        sealed = EvaluationTask(payload, backend_name(), threads_of(spark))
        evaluate = carried(_partition_function(sealed))
        rows = prepared.frame.mapInArrow(evaluate, row_type(states=T.StringType())).collect()
    found: list[Evaluated] = [json.loads(row.states) for row in rows]
    further = {name: value for part in found for name, value in part["last"].items()}
    if on_minibatch is None:
        parts = [part["states"] for part in found]
        return further | together(model, prepared.columns, batch_size, parts)
    arrived: States = []
    for number, states in enumerate(states for part in found for states in part["each"]):
        arrived = added(arrived, states)
        logs = further | together(model, prepared.columns, batch_size, [arrived])
        if not on_minibatch(number, logs):
            break
    return logs


def _partition_function(
    sealed: EvaluationTask,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def evaluate_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        opened = replace(sealed, evaluation=localized(sealed.evaluation))
        states = partial_states(opened, context.partitionId() if context else 0, batches)
        yield pa.RecordBatch.from_pydict({"states": [json.dumps(states)]})

    return evaluate_partition
