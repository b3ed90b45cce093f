"""The workers as one Spark stage, one task per partition."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import types as T  # noqa: N812 (Spark's own custom)

from distkeras.cluster.delivery import localized
from distkeras.cluster.elastic import ElasticStage
from distkeras.cluster.executor_side import executor_id
from distkeras.cluster.shipping import carried
from distkeras.cluster.stage import Stage, row_type
from distkeras.worker import task as worker_task

if TYPE_CHECKING:
    from pyspark.resource import ResourceProfile
    from pyspark.sql import DataFrame

    from distkeras.worker.task import Envelope

STATES = row_type(
    worker=T.IntegerType(),
    error=T.StringType(),
    name=T.StringType(),
    dtype=T.StringType(),
    shape=T.ArrayType(T.LongType()),
    part=T.IntegerType(),
    data=T.BinaryType(),
)
"""The type of the rows of `FinalState.batches`."""


def worker_stage(
    frame: DataFrame,
    envelope: Envelope,
    *,
    barrier: bool,
    tell: Callable[[str], None],
    before_again: Callable[[], object] = lambda: None,
    profile: ResourceProfile | None = None,
) -> Stage:
    """Return the stage that trains on every partition of `frame`: partition i is worker i.

    Spark retries a task whose process died, or that could not reach a server; other exceptions of the task
    itself are returned as rows.

    Args:
        frame: the prepared rows, one partition per worker.
        envelope: the task and the settings for each worker.
        barrier: start all workers together, and restart all when one is lost.
        tell: as in `Stage`.
        before_again: as in `Stage`.
        profile: what Spark gives each task; `None` for the application's settings.

    Returns:
        A stage that has not started; `worker.final_state` reads its rows.
    """
    function = carried(_partition_function(envelope))
    trained = frame.mapInArrow(function, STATES, barrier=barrier, profile=profile)
    return Stage(trained, "trains", tell, barrier=barrier, before_again=before_again)


def elastic_stage(
    frame: DataFrame,
    envelope: Envelope,
    num_epoch: int,
    *,
    profile: ResourceProfile | None,
    tell: Callable[[str], None],
) -> ElasticStage:
    """Return the jobs that train on every partition of `frame`, which is a share: one for each epoch.

    Args:
        frame: the prepared rows, one partition per share; stored, since every job reads them.
        envelope: as for `worker_stage`.
        num_epoch: number of epochs.
        profile: as for `worker_stage`.
        tell: as in `Stage`.
    """

    training = uuid.uuid4().hex

    def stage_of(epoch: int) -> Stage:
        function = _partition_function(envelope, until=epoch + 1, training=training)
        trained = frame.mapInArrow(carried(function), STATES, profile=profile)
        return Stage(trained, f"trains epoch {epoch + 1}", tell)

    return ElasticStage(frame.sparkSession, stage_of, num_epoch)


def gpus_of(context: TaskContext) -> tuple[str, ...]:
    """Return the addresses of the GPUs that Spark's resource API gave a task."""
    given = context.resources().get("gpu")
    return () if given is None else tuple(given.addresses)


def _partition_function(  # type: ignore[no-untyped-def]  # pyspark's own type is private
    envelope: Envelope, until: int | None = None, training: str = ""
):
    def train_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        worker = context.partitionId()
        # A restarted stage counts its attempts from 0 again, while each task number is used once.
        start = worker_task.Start(
            worker,
            context.attemptNumber(),
            context.taskAttemptId(),
            gpus_of(context),
            until,
            training,
            executor_id(),
        )
        yield from worker_task.run(
            replace(envelope, model=localized(envelope.model)), start, batches
        ).batches(worker)

    return train_partition
