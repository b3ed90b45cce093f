"""The workers as one Spark stage: a task a partition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext

from distkeras.cluster.delivery import localized
from distkeras.cluster.stage import Stage
from distkeras.worker import task as worker_task
from distkeras.worker.final_state import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.worker.task import Envelope


def worker_stage(
    frame: DataFrame, envelope: Envelope, *, barrier: bool, tell: Callable[[str], None]
) -> Stage:
    """Return the stage that trains on every partition of `frame`: partition i is worker i.

    A task whose process died is tried again; an exception of the task itself comes back as a row.

    Args:
        frame: the prepared rows, one partition a worker.
        envelope: what each worker is told.
        barrier: start all workers together, and all again when one is lost.
        tell: as in `Stage`.

    Returns:
        A stage that has not started; `worker.final_state` reads its rows.
    """
    trained = frame.mapInArrow(_partition_function(envelope), SCHEMA, barrier=barrier)
    # Spark gives up on a barrier stage that is a job's last when a task of it is lost; one whose rows go
    # through a shuffle it starts again.
    return Stage(trained.repartition(1) if barrier else trained, tell)


def gpus_of(context: TaskContext) -> tuple[str, ...]:
    """Return the addresses of the GPUs that Spark's resource API gave a task."""
    given = context.resources().get("gpu")
    return () if given is None else tuple(given.addresses)


def _partition_function(envelope: Envelope):  # type: ignore[no-untyped-def]  # pyspark's own type is private
    def train_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        worker = context.partitionId()
        # A stage that is started again counts its attempts anew; the number of a task is used once.
        start = worker_task.Start(worker, context.attemptNumber(), context.taskAttemptId(), gpus_of(context))
        yield from worker_task.run(
            replace(envelope, model=localized(envelope.model)), start, batches
        ).batches(worker)

    return train_partition
