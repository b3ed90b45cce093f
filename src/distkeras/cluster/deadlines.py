"""How long the driver waits for each worker: for its first word, and for one that is lost."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from distkeras.cluster.task_status import TaskStatus

LOOK_SECONDS = 5.0
"""Seconds between two looks at Spark's tasks, while a worker is missed."""


class WorkerError(RuntimeError):
    """A worker stopped on an exception; the message holds the whole traceback. Or it was missed too long."""


@dataclass(frozen=True)
class Limits:
    """How long the driver waits, and what it knows of Spark.

    Attributes:
        give_up: seconds for the first worker, and for one that was lost.
        start: seconds for a worker's first word, from the start of its task.
        together: whether Spark starts all workers at once.
        slots: number of workers that Spark can run at once; `None` if unknown.
        tasks: returns Spark's tasks of the workers, where partition i is worker i; `None` if Spark tells
            nothing of them.
    """

    give_up: float = 1800.0
    start: float = 600.0
    together: bool = False
    slots: int | None = None
    tasks: Callable[[], Sequence[TaskStatus] | None] = lambda: None


class Deadlines:
    """Follows each worker from its first word to its last, and ends the training when one is missed too long.

    Args:
        num_workers: number of workers.
        limits: how long they may be missed.
        clock: returns seconds from any origin.
        tell: receives a sentence and a logging level, when Spark says that a worker's task has failed.

    Attributes:
        training: the workers that have not ended.
    """

    def __init__(
        self,
        num_workers: int,
        limits: Limits,
        clock: Callable[[], float],
        tell: Callable[[str, int], None],
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._tell = tell
        self.training = set(range(num_workers))
        self._joined: set[int] = set()
        self._silent: dict[int, float] = {}
        self._started = self._looked = clock()
        self._first: float | None = None  # When the first worker joined.
        self._short: float | None = None  # Since when fewer workers train than could.
        self._tasks: Sequence[TaskStatus] | None = ()
        self._told: set[int] = set()

    def heard(self, worker: int) -> None:
        """Record that a worker trains, or trains again after its end."""
        if self._first is None:
            self._first = self._clock()
        self._joined.add(worker)
        self.training.add(worker)  # It may have left before more epochs were requested.
        self._silent.pop(worker, None)

    def back(self, worker: int) -> None:
        """Record that a lost worker has sent a message."""
        self._silent.pop(worker, None)

    def lost(self, worker: int, silence: float) -> None:
        """Record that a worker has been silent for `silence` seconds."""
        self._silent[worker] = self._clock() - silence

    def left(self, worker: int) -> None:
        """Record that a worker has ended."""
        self.training.discard(worker)
        self._silent.pop(worker, None)

    def restored(self, left: Iterable[bool]) -> None:
        """Record that the server has restarted; `left` says of each worker whether it has ended."""
        self.training = {worker for worker, ended in enumerate(left) if not ended}
        # The new process does not know which workers the old one missed, and reports those it hears.
        self._silent = dict.fromkeys(self._joined & self.training, self._clock())

    def check(self) -> None:
        """Look whether a worker has been missed for too long.

        Raises:
            WorkerError: one has; the message says which, for how long, and what Spark says of its task.
        """
        now, give_up = self._clock(), self._limits.give_up
        self._look(now)
        if self._first is None and now - self._started > give_up:
            raise WorkerError(
                f"No worker had started after {give_up:.0f} s.{self._spark_says(sorted(self.training))} See "
                "the Spark UI for the cause; ServerOptions(give_up=...) sets this limit."
            )
        for worker, since in self._silent.items():
            if now - since > give_up:
                raise WorkerError(
                    f"Worker {worker} sent no heartbeat for {now - since:.0f} s, and Spark did not "
                    "replace it: its process hangs, or its machine cannot reach the parameter server."
                    f"{self._spark_says([worker])} ServerOptions(give_up=...) sets this limit."
                )
        if self._first is not None and (unheard := self.training - self._joined):
            self._check_first_words(sorted(unheard), now, self._first)

    def _look(self, now: float) -> None:
        """Ask Spark for the tasks if a worker is missed; tell which have failed."""
        missed = self._silent or self.training - self._joined
        if self._tasks is None or not missed or now - self._looked < LOOK_SECONDS:
            return
        self._looked, self._tasks = now, self._limits.tasks()
        for task in self._tasks or ():
            if task.status == "FAILED" and task.number not in self._told:
                self._told.add(task.number)
                self._tell(
                    f"The task of worker {task.partition} failed on {task.where}: {last_line(task.error)}",
                    logging.WARNING,
                )

    def _check_first_words(self, unheard: list[int], now: float, first: float) -> None:
        """Look whether one of the workers that never spoke is late, `first` being when another one did."""
        limits = self._limits
        if self._tasks is None:
            self._check_without_spark(unheard, now)
            return
        running = {task.partition: task for task in self._tasks if task.status == "RUNNING"}
        # Before a worker has joined, these may be tasks that prepare the rows.
        late = [
            worker
            for worker in unheard
            if worker in running and min(running[worker].seconds, now - first) > limits.start
        ]
        if late:
            raise WorkerError(_never_spoke(late, limits.start) + self._spark_says(late) + _ADVICE)

    def _check_without_spark(self, unheard: list[int], now: float) -> None:
        limits = self._limits
        slots = len(self.training) if limits.together else limits.slots or 0
        if len(self.training & self._joined) >= min(slots, len(self.training)):
            self._short = None
            return
        self._short = now if self._short is None else self._short
        limit = limits.start if limits.together else limits.give_up
        if now - self._short > limit:
            raise WorkerError(_never_spoke(unheard, limit) + _ADVICE)

    def _spark_says(self, workers: Iterable[int]) -> str:
        """Return what Spark says of the last tasks of `workers`, as sentences that begin with a space."""
        if not self._tasks:
            return ""
        last = {task.partition: task for task in sorted(self._tasks, key=lambda task: task.number)}
        return "".join(f" {_told_of(worker, last.get(worker))}" for worker in list(workers)[:10])


_ADVICE = (
    " Its Python process did not start, hangs, or cannot reach the parameter server: see the standard error "
    "of its executor. Raise ServerOptions(start=...) if the rows take longer to arrive."
)


def _never_spoke(workers: list[int], limit: float) -> str:
    who = f"Worker {workers[0]} has" if len(workers) == 1 else f"The workers {workers} have"
    return f"{who} not joined the training within {limit:.0f} s, while others train."


def _told_of(worker: int, task: TaskStatus | None) -> str:
    if task is None:
        return f"Spark has not started the task of worker {worker}."
    state = f"Spark says that the task of worker {worker} is {task.status} on {task.where}"
    if task.error:
        return f"{state}: {last_line(task.error)}"
    return f"{state}, started {task.seconds:.0f} s ago."


def last_line(error: str) -> str:
    """Return what a Python exception in Spark's error says, or its first line if it has none."""
    found = python_traceback(error)
    lines = (found or error).strip().splitlines()
    return (lines[-1] if found else lines[0]) if lines else "Spark gives no reason"


def python_traceback(error: str) -> str | None:
    """Return the traceback of a Python worker from Spark's error, without what Spark's JVM adds to it."""
    found = re.search(r"Traceback \(most recent call last\):\n.*", error, re.DOTALL)
    if found is None:
        return None
    return re.split(r"\n SQLSTATE|\n\s*at [\w.$]+\(|\nDriver stacktrace:|\n\tat ", found[0])[0].strip()
