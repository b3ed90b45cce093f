"""A Spark job in a thread, so that the driver can watch or cancel it."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyspark import InheritableThread
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812
from pyspark.sql.utils import is_remote

from distkeras.cluster.batches import limited_batches
from distkeras.cluster.description import current_subject, described
from distkeras.cluster.settings import tries_once

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row, SparkSession

GRACE_SECONDS = 5.0
GROUP = "spark.jobGroup.id"
LOCAL_RUNS = 4
"""Spark's default number of attempts per task, for the master local[N], which makes only one."""

LOST = ("SourceLost", "Python worker exited unexpectedly", "PythonWorkerFactory.createWorker")
"""Parts of Spark's errors for a task that it would retry elsewhere.

The last is part of the stack of Java, where a worker died before it had said its process id.
"""

LOST_BARRIER = "Could not recover from a failed barrier ResultStage"
"""Part of Spark's error for a job whose last stage is a barrier stage that has lost a task.

Spark itself would restart one with a shuffle behind it. But where it refuses a barrier stage between two
shuffles, as with dynamic allocation or with too few task slots, its scheduler loses count of its stages and
ends the whole application, seen with Spark 4.3. It refuses a job's last stage without such damage.
"""

logger = logging.getLogger(__name__)


def row_type(**columns: T.DataType) -> T.StructType:
    """Return the type of rows with these columns.

    The first type that Spark reads from text, such as "host string", takes a quarter of a second.
    """
    return T.StructType([T.StructField(name, kind) for name, kind in columns.items()])


def short_tasks(
    spark: SparkSession, function: Callable[[int], tuple[Any, ...]], answer: T.StructType, num_tasks: int
) -> DataFrame:
    """Return what `function` returns for 0 to `num_tasks` - 1, a row each, every one in a task of its own.

    Rows are pickled: the only form of Spark's data that needs no pyarrow in the executors' Python.

    Args:
        spark: the session.
        function: one that travels by value runs also where this package is not installed.
        answer: names and types of what it returns.
        num_tasks: number of tasks.
    """
    udf = F.udf(function, answer, useArrow=False).asNondeterministic()
    return spark.range(0, num_tasks, 1, num_tasks).select(udf("id").alias("answer")).select("answer.*")


class Stage:
    """A Spark job that collects the rows of `frame` in a thread.

    On the master local[N], where Spark retries no task, the job runs again if a Python worker is lost. A
    barrier stage runs again as a whole when it has lost a task, as often as Spark restarts a stage.

    Args:
        frame: the DataFrame.
        what: what the job does, for Spark's web pages: see `described`.
        tell: receives a sentence when the job runs again.
        barrier: whether the frame ends with a barrier stage.
        before_again: called before the job runs again; its exception ends the stage.

    Attributes:
        tag: part of the tags of its Spark jobs.
        rows: all rows, after the job has ended.
        error: the exception that ended the job, if any.
    """

    def __init__(
        self,
        frame: DataFrame,
        what: str,
        tell: Callable[[str], None] = logger.warning,
        *,
        barrier: bool = False,
        before_again: Callable[[], object] = lambda: None,
    ) -> None:
        self._tell = tell
        self._what, self._subject = what, current_subject()
        self.rows: list[Row] = []
        self.error: BaseException | None = None
        self._frame = frame
        self._spark = frame.sparkSession
        self._group: str | None = None
        self.tag = f"distkeras-{uuid.uuid4()}"
        self._before_again = before_again
        self._runs, self._lost = _runs_of(self._spark, barrier)
        self._ended = threading.Event()
        self._thread = InheritableThread(target=self._run, daemon=True, session=self._spark)

    def start(self) -> None:
        """Submit the job to Spark."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether the job has ended."""
        return self._ended.wait(seconds)

    def result(self, limit: float) -> list[Row] | None:
        """Run the job and return its rows; `None` if it has not ended after `limit` seconds: it is cancelled.

        Raises:
            Exception: the error that ended the job.
        """
        self._subject.tell(self._what)
        self.start()
        try:
            ended = self.wait(limit)
        finally:
            self.cancel()
        if not ended:
            return None
        if self.error is not None:
            raise self.error
        return self.rows

    def start_no_more(self) -> None:
        """Do nothing: all workers have been submitted."""

    def waiting_tasks(self) -> int | None:
        """Return how many tasks of the job wait for a slot; `None` if Spark does not tell, or not yet."""
        if is_remote() or self._group is None:
            return None
        tracker = self._spark.sparkContext.statusTracker()
        jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(self._group)]
        own = {stage for job in jobs if job is not None for stage in job.stageIds}
        active = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds() if stage in own]
        known = [stage for stage in active if stage is not None]
        if not known:
            return None
        return sum(int(stage.numTasks - stage.numActiveTasks - stage.numCompletedTasks) for stage in known)

    def cancel(self, grace: float = 0.0) -> None:
        """Let Spark end the job if it has not ended by itself after `grace` seconds."""
        self._runs = 0
        if not self._ended.wait(grace):
            self._spark.interruptTag(self.tag)
            self._ended.wait(GRACE_SECONDS)

    def _run(self) -> None:
        try:
            self._spark.addTag(self.tag)
            self._group = self._own_group()
            with described(self._spark, self._what, self._subject):
                self.rows = self._collect()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()

    def _own_group(self) -> str | None:
        """Return the job group of this thread: the user's, or else one of its own."""
        if is_remote():
            return None
        context = self._spark.sparkContext
        given = context.getLocalProperty(GROUP)
        if given is None:
            context.setLocalProperty(GROUP, self.tag)
        return str(given or self.tag)

    def _collect(self) -> list[Row]:
        frame = self._frame
        while True:
            self._runs -= 1
            try:
                with limited_batches(self._spark):
                    rows: list[Row] = frame.collect()
            except Exception as error:
                if self._runs <= 0 or not any(what in str(error) for what in self._lost):
                    raise
                self._before_again()
                if self._runs <= 0:  # It was cancelled meanwhile.
                    raise
                self._tell("A worker was lost, and all workers restart.")
                # A plan of its own: that of a frame that failed once returns the same error again.
                frame = self._frame.select("*")
            else:
                return rows


def _runs_of(spark: SparkSession, barrier: bool) -> tuple[int, tuple[str, ...]]:
    """Return how often a job may run, and parts of the errors after which it runs again."""
    if tries_once(spark):
        return LOCAL_RUNS, LOST
    if not barrier:
        return 1, ()
    return int(spark.conf.get("spark.stage.maxConsecutiveAttempts", "4") or 4), (LOST_BARRIER,)
