"""What Spark says of the tasks of a stage: where they run, since when, and why one has failed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distkeras.cluster.settings import is_remote

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAX_TASKS = 10_000


@dataclass(frozen=True)
class TaskStatus:
    """One attempt of a task.

    Attributes:
        partition: index of its partition.
        number: number of the attempt, used once in an application.
        status: `RUNNING`, `SUCCESS`, `FAILED` or `KILLED`.
        executor: identifier of its executor.
        host: the executor's host.
        seconds: since its launch.
        error: Spark's error, of a failed one.
    """

    partition: int
    number: int
    status: str
    executor: str
    host: str
    seconds: float
    error: str = ""

    @property
    def where(self) -> str:
        """Executor and host, for messages."""
        return f"executor {self.executor} on {self.host}"


def tasks_without_slot(spark: SparkSession, tag: str) -> int | None:
    """Return how many tasks have never had a slot: of the last stage of the active job whose tags have `tag`.

    Spark updates the counts of a stage late, those of its tasks at once.

    Returns:
        `None` over Spark Connect, and as long as that stage has not begun.
    """
    if is_remote():
        return None
    stages = _stages(spark, tag)
    if not stages:
        return None
    store = spark.sparkContext._jsc.sc().statusStore()
    last = store.lastStageAttempt(max(stages))
    if last.status().toString() != "ACTIVE":
        return None
    return max(0, int(last.numTasks()) - int(store.taskCount(last.stageId(), last.attemptId())))


def task_statuses(spark: SparkSession, tag: str) -> list[TaskStatus] | None:
    """Return the tasks of the last stage of the active job whose tags contain `tag`, in any order.

    Args:
        spark: the session.
        tag: `Stage.tag`.

    Returns:
        `None` over Spark Connect, which tells a client nothing of them.
    """
    if is_remote():
        return None
    store = spark.sparkContext._jsc.sc().statusStore()
    found: list[TaskStatus] = []
    if stages := _stages(spark, tag):
        last = store.lastStageAttempt(max(stages))
        now = time.time()
        tasks = store.taskList(last.stageId(), last.attemptId(), MAX_TASKS).iterator()
        while tasks.hasNext():
            found.append(_status_of(tasks.next(), now))
    return found


def _stages(spark: SparkSession, tag: str) -> list[int]:
    """Return the stages of the active job whose tags contain `tag`."""
    context = spark.sparkContext._jsc.sc()
    return [
        int(stage)
        for job in map(context.statusStore().job, context.statusTracker().getActiveJobIds())
        if tag in job.jobTags().mkString(" ")
        for stage in str(job.stageIds().mkString(" ")).split()
    ]


def _status_of(task: Any, now: float) -> TaskStatus:
    error = task.errorMessage()
    return TaskStatus(
        task.partitionId(),
        task.taskId(),
        task.status(),
        task.executorId(),
        task.host(),
        now - task.launchTime().getTime() / 1000,
        str(error.get()) if error.isDefined() else "",
    )
