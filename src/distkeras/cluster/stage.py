"""A Spark job in a thread, so that the driver can watch or cancel it."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from pyspark import InheritableThread

from distkeras.cluster.batches import limited_batches
from distkeras.cluster.settings import tries_once

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, Row

GRACE_SECONDS = 5.0
LOCAL_RUNS = 4
"""Spark's default number of attempts per task, for the master local[N], which makes only one."""

LOST = ("SourceLost", "Python worker exited unexpectedly")
"""Parts of Spark's errors for a task that it would retry elsewhere."""

logger = logging.getLogger(__name__)


class Stage:
    """A Spark job that collects the rows of `frame` in a thread.

    On the master local[N], where Spark retries no task, the job runs again if a Python worker is lost.

    Args:
        frame: the DataFrame.
        tell: receives a sentence when the job runs again.

    Attributes:
        rows: all rows, after the job has ended.
        error: the exception that ended the job, if any.
    """

    def __init__(self, frame: DataFrame, tell: Callable[[str], None] = logger.warning) -> None:
        self._tell = tell
        self.rows: list[Row] = []
        self.error: BaseException | None = None
        self._frame = frame
        self._spark = frame.sparkSession
        self._tag = f"distkeras-{uuid.uuid4()}"
        self._runs = LOCAL_RUNS if tries_once(self._spark) else 1
        self._ended = threading.Event()
        self._thread = InheritableThread(target=self._run, daemon=True, session=self._spark)

    def start(self) -> None:
        """Submit the job to Spark."""
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether the job has ended."""
        return self._ended.wait(seconds)

    def cancel(self, grace: float = 0.0) -> None:
        """Let Spark end the job if it has not ended by itself after `grace` seconds."""
        self._runs = 0
        if not self._ended.wait(grace):
            self._spark.interruptTag(self._tag)
            self._ended.wait(GRACE_SECONDS)

    def _run(self) -> None:
        try:
            self._spark.addTag(self._tag)
            self.rows = self._collect()
        except BaseException as error:
            self.error = error
        finally:
            self._ended.set()

    def _collect(self) -> list[Row]:
        while True:
            self._runs -= 1
            try:
                with limited_batches(self._spark):
                    rows: list[Row] = self._frame.collect()
            except Exception as error:
                if self._runs <= 0 or not any(what in str(error) for what in LOST):
                    raise
                self._tell("A Python worker was lost, and all workers restart.")
            else:
                return rows
