"""The workers as one Spark stage, one task per partition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext

from distkeras.cluster.delivery import localized
from distkeras.cluster.shipping import carried
from distkeras.cluster.stage import Stage
from distkeras.worker import task as worker_task
from distkeras.worker.final_state import SCHEMA

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.worker.task import Envelope


def worker_stage(
    frame: DataFrame,
    envelope: Envelope,
    *,
    barrier: bool,
    tell: Callable[[str], None],
    before_again: Callable[[], object] = lambda: None,
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

    Returns:
        A stage that has not started; `worker.final_state` reads its rows.
    """
    trained = frame.mapInArrow(carried(_partition_function(envelope)), SCHEMA, barrier=barrier)
    return Stage(trained, tell, barrier=barrier, before_again=before_again)


def gpus_of(context: TaskContext) -> tuple[str, ...]:
    """Return the addresses of the GPUs that Spark's resource API gave a task."""
    given = context.resources().get("gpu")
    return () if given is None else tuple(given.addresses)


def _partition_function(envelope: Envelope):  # type: ignore[no-untyped-def]  # pyspark's own type is private
    def train_partition(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        worker = context.partitionId()
        # A restarted stage counts its attempts from 0 again, while each task number is used once.
        start = worker_task.Start(worker, context.attemptNumber(), context.taskAttemptId(), gpus_of(context))
        yield from worker_task.run(
            replace(envelope, model=localized(envelope.model)), start, batches
        ).batches(worker)

    return train_partition
