"""The workers as one Spark stage: a task a partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark import TaskContext

from distkeras.cluster.collecting import GRACE_SECONDS, Collecting
from distkeras.cluster.delivery import here
from distkeras.worker import task as worker_task
from distkeras.worker.ending import SCHEMA, Ending, endings_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.worker.task import Envelope


class Stage:
    """Trains on every partition of `frame`: partition i is worker i.

    A task whose process died is tried again; an exception of the task itself comes back as a row.

    Args:
        frame: the prepared rows, one partition a worker.
        envelope: what each worker is told.
        barrier: start all workers together, and all again when one is lost.
    """

    def __init__(self, frame: DataFrame, envelope: Envelope, *, barrier: bool) -> None:
        trained = frame.mapInArrow(_partition_function(envelope), SCHEMA, barrier=barrier)
        # Spark gives up on a barrier stage that is a job's last when a task of it is lost; one whose rows go
        # through a shuffle it starts again.
        self._collecting = Collecting(trained.repartition(1) if barrier else trained)

    def start(self) -> None:
        """Submit the stage to Spark."""
        self._collecting.start()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether the stage has ended."""
        return self._collecting.wait(seconds)

    def cancel(self) -> None:
        """Wait a little for workers that were told to stop, then have Spark end those that are left."""
        self._collecting.cancel(GRACE_SECONDS)

    @property
    def error(self) -> BaseException | None:
        """What ended the stage, if something did."""
        return self._collecting.error

    @property
    def failures(self) -> list[tuple[int, str]]:
        """Workers that ended by an exception, and its traceback."""
        return sorted((row.worker, row.error) for row in self._collecting.rows if row.error is not None)

    @property
    def endings(self) -> dict[int, Ending]:
        """What each worker left, once the stage has ended."""
        return endings_of(self._collecting.rows)


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
        yield from worker_task.run(replace(envelope, model=here(envelope.model)), start, batches).batches(
            worker
        )

    return train_partition
