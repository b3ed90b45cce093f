"""Every worker has a limit for its first word, and the error says what Spark says of its task."""

from __future__ import annotations

import pytest

from distkeras.center.answers import Polled
from distkeras.cluster.deadlines import Deadlines, Limits, last_line, python_traceback
from distkeras.cluster.task_status import TaskStatus
from distkeras.cluster.watch import Watch, WorkerError

TRACEBACK = """Traceback (most recent call last):
  File "task.py", line 116, in run
    each.call(Beat(start.worker, start.ticket))
TimeoutError: timed out

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "task.py", line 121, in run
    raise ServerLost(whose)
distkeras.wire.client.ServerLost: Worker 1 on host-b: The server could not be reached."""

OF_SPARK = [
    f"An exception was thrown from the Python worker:\n{TRACEBACK}",
    "An error occurred while calling o85.collectToPython.\n: org.apache.spark.SparkException: Job aborted "
    "due to stage failure: Could not recover from a failed barrier ResultStage.\norg.apache.spark.api.python."
    f"PythonException: [PYTHON_EXCEPTION] An exception was thrown from the Python worker: {TRACEBACK}\n"
    " SQLSTATE: 38000\n\tat org.apache.spark.Runner.run(Runner.scala:1)\n\nDriver stacktrace:\n\tat a.b(C)",
    f"PythonException: {TRACEBACK}\n\n\tat org.apache.spark.Runner.run(Runner.scala:1)\n",
]


class World:
    """A clock, Spark's tasks, and the deadlines of three workers.

    Args:
        tasks: Spark's tasks, as triples of worker, status and the second of their launch; None for none told.
        limits: as in `Limits`.
    """

    def __init__(self, tasks, **limits):
        self.now, self.told = 0.0, []
        self.tasks = tasks
        limits = Limits(give_up=1800, start=600, tasks=self.statuses, **limits)
        self.deadlines = Deadlines(3, limits, lambda: self.now, lambda text, level: self.told.append(text))

    def statuses(self):
        if self.tasks is None:
            return None
        return [
            TaskStatus(worker, number, status, "7", "host-b", self.now - launched)
            for number, (worker, status, launched) in enumerate(self.tasks)
        ]

    def at(self, second):
        while self.now < second:
            self.now += 10
            self.deadlines.check()


def test_a_worker_whose_task_runs_but_never_speaks_ends_the_training_with_what_spark_says():
    world = World([(0, "RUNNING", 0), (1, "RUNNING", 20), (2, "RUNNING", 0)])
    for worker in (0, 2):
        world.deadlines.heard(worker)
    world.at(610)
    said = r"Worker 1 has not joined .* within 600 s.*worker 1 is RUNNING on executor 7 on host-b, started 6"
    with pytest.raises(WorkerError, match=said):
        world.at(640)


def test_a_worker_that_waits_for_a_slot_has_no_limit():
    world = World([(0, "RUNNING", 0), (1, "RUNNING", 0)])
    for worker in (0, 1):
        world.deadlines.heard(worker)
    world.at(10_000)
    world.tasks = [(0, "SUCCESS", 0), (1, "RUNNING", 0), (2, "RUNNING", 10_000)]
    world.deadlines.left(0)
    world.at(10_600)
    with pytest.raises(WorkerError, match="Worker 2 has not joined"):
        world.at(10_650)


def test_tasks_that_prepare_the_rows_are_not_taken_for_workers():
    world = World([(0, "RUNNING", 0), (1, "RUNNING", 0)])
    world.at(1500)  # As long as no worker has joined.
    world.deadlines.heard(0)
    world.at(2000)


def test_where_no_worker_ever_starts_the_error_says_what_became_of_their_tasks():
    world = World([(0, "FAILED", 0)])
    with pytest.raises(WorkerError, match=r"No worker had started after 1800 s\. Spark says .* is FAILED on"):
        world.at(1820)
    assert world.told == ["The task of worker 0 failed on executor 7 on host-b: Spark gives no reason"]


@pytest.mark.parametrize(("together", "slots", "limit"), [(True, 3, 600), (False, 3, 1800), (False, 2, None)])
def test_where_spark_tells_nothing_of_tasks_the_number_of_slots_says_who_should_have_started(
    together, slots, limit
):
    world = World(None, together=together, slots=slots)
    for worker in (0, 1):
        world.deadlines.heard(worker)
    world.at(10_000 if limit is None else limit)
    if limit is not None:
        with pytest.raises(WorkerError, match=f"Worker 2 has not joined the training within {limit} s"):
            world.at(limit + 30)


@pytest.mark.parametrize("text", OF_SPARK, ids=["classic", "barrier", "connect"])
def test_the_error_of_a_worker_that_lost_the_server_arrives_once_and_whole(text):
    class Ended:
        """A stage whose task has raised, with its servers and the connection to them."""

        error, rows = RuntimeError(text), ()

        def wait(self, seconds):
            return True

        def revive(self, since, seconds=0.0):
            return False

        def call(self, request):
            return Polled([], 0, 0)

    ended = Ended()
    with pytest.raises(WorkerError) as raised:
        Watch(ended, ended, ended, 1, print).run()
    assert str(raised.value) == f"Worker 1 failed:\n{TRACEBACK}"
    assert python_traceback("Executor lost") is None
    assert last_line(text).startswith("distkeras.wire.client.ServerLost: Worker 1 on host-b")
