"""The tasks of an elastic training: one for each share and epoch, in one Spark job an epoch."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from distkeras.cluster.description import described
from distkeras.cluster.stage import Stage

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

    from distkeras.worker.task import Task

LOOK_SECONDS = 0.1


@contextlib.contextmanager
def stored(frame: DataFrame, task: Task) -> Iterator[DataFrame]:
    """Lay the rows of an elastic training out once, in the executors' memory and on their disks.

    Without it every job would read and shuffle them again. What an executor had when it was lost is computed
    again where it is needed. Of other trainings, which are one job, nothing is stored.
    """
    if task.center.elastic is None or task.num_epoch == 1:
        yield frame
        return
    frame.persist()
    try:
        with described(frame.sparkSession, "stores the rows"):
            frame.count()
        yield frame
    finally:
        frame.unpersist()


class ElasticStage:
    """Runs the jobs of all epochs, one after the other.

    A job begins when the one before has no task left that waits for a slot. So no slot is idle at the end of
    an epoch, and Spark, which gives slots to the older of two jobs first, knows at most two of them. Over
    Spark Connect, which does not tell of tasks, it begins when the one before has ended.

    Args:
        spark: the session.
        stage_of: returns the stage that trains every share to the end of an epoch.
        num_epoch: number of epochs.

    Attributes:
        rows: all rows of the last job, after the end, and those of the others that hold an error.
        error: the exception that ended a job, if any.
    """

    def __init__(self, spark: SparkSession, stage_of: Callable[[int], Stage], num_epoch: int) -> None:
        self.rows: list[Row] = []
        self.error: BaseException | None = None
        self._spark = spark
        self._stage_of = stage_of
        self._num_epoch = num_epoch
        self._running: deque[Stage] = deque()
        self._last = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            # Its jobs are for what the caller's are.
            target=contextvars.copy_context().run,
            args=(self._run,),
            name="distkeras-elastic",
            daemon=True,
        )

    def start(self) -> None:
        """Submit the first job to Spark."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether all jobs have ended."""
        return self._ended.wait(seconds)

    def start_no_more(self) -> None:
        """Begin no more epochs: the driver has ordered the workers to stop."""
        self._last.set()

    def cancel(self, grace: float = 0.0) -> None:
        """Let Spark end the jobs that have not ended by themselves after `grace` seconds."""
        self.start_no_more()
        deadline = time.monotonic() + grace
        for stage in list(self._running):
            stage.cancel(max(0.0, deadline - time.monotonic()))
        self._ended.wait(1.0)

    def _run(self) -> None:
        try:
            for epoch in range(self._num_epoch):
                if self._last.is_set() or any(each.error is not None for each in self._running):
                    break
                stage = self._stage_of(epoch)
                stage.start()
                self._running.append(stage)
                while not self._may_go_on(stage):
                    self._take_ended()
            while self._running:
                self._take_ended()
        except BaseException as error:
            self.error = self.error or error
        finally:
            self._ended.set()

    def _may_go_on(self, stage: Stage) -> bool:
        """Return whether the next job may begin; wait a moment for it."""
        ended = stage.wait(LOOK_SECONDS)
        return ended or (len(self._running) == 1 and stage.waiting_tasks() == 0)

    def _take_ended(self) -> None:
        """Take the rows of the oldest job if it has ended; wait a moment for it."""
        if not self._running or not self._running[0].wait(LOOK_SECONDS):
            return
        stage = self._running.popleft()
        if stage.error is not None:
            self.error = self.error or stage.error
            self.start_no_more()
        # The last state of a share is that of its last epoch.
        self.rows = [row for row in self.rows if row.error is not None] + stage.rows
