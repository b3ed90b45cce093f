"""Stages run again after a loss, say where their tasks run, and find out slots and closed ports."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest
from pyspark.sql.types import LongType

from distkeras.cluster import reach, slots
from distkeras.cluster.reach import ServerUnreachable, check_reachable
from distkeras.cluster.slots import NotEnoughSlots, at_once, check_slots, count_slots
from distkeras.cluster.stage import LOST_BARRIER, Stage, row_type, short_tasks
from distkeras.cluster.task_status import task_statuses


def dying_once(frame, marker, *, barrier):
    """Return `frame` through tasks of which one kills its process, once."""

    def through(batches):
        try:
            os.rmdir(marker)
        except FileNotFoundError:
            yield from batches
        else:
            os.kill(os.getpid(), 9)

    return frame.mapInArrow(through, frame.schema, barrier=barrier)


DYING_DAEMON = """
import os
from pyspark import daemon

fork = os.fork

def fork_once_to_death():
    process = fork()
    if process == 0 and os.path.exists(os.environ["ONCE"]):
        os.rmdir(os.environ["ONCE"])
        os.kill(os.getpid(), 9)
    return process

os.fork = fork_once_to_death
daemon.manager()
"""


@pytest.fixture
def dying_daemon(spark, tmp_path):
    """Give Spark a daemon whose first worker is killed before it says its process id."""
    (tmp_path / "once").mkdir()
    (tmp_path / "dying_daemon.py").write_text(DYING_DAEMON)
    context = spark.sparkContext
    settings, module = context._jsc.sc().conf(), "spark.python.daemon.module"
    before = dict(context.environment)
    settings.set(module, "dying_daemon")
    context.environment.update(PYTHONPATH=str(tmp_path), ONCE=str(tmp_path / "once"))
    yield tmp_path / "once"
    settings.remove(module)
    context.environment.clear()
    context.environment.update(before)


def test_a_job_runs_again_when_a_worker_dies_before_spark_knows_its_process(spark, dying_daemon):
    told = []
    tasks = short_tasks(spark, lambda task: (task,), row_type(task=LongType()), 2)
    rows = Stage(tasks, "tests", told.append).result(60)
    assert sorted(row.task for row in rows) == [0, 1]
    assert told == ["A worker was lost, and all workers restart."]
    assert not dying_daemon.exists()


@pytest.mark.parametrize("barrier", [False, True])
def test_a_stage_behind_a_shuffle_runs_again_when_it_has_lost_a_process(spark, tmp_path, barrier):
    (tmp_path / "once").mkdir()
    shuffled = spark.range(0, 20, 1, 2).repartition(2, "id")
    told = []
    frame = dying_once(shuffled, str(tmp_path / "once"), barrier=barrier)
    rows = Stage(frame, "tests", told.append, barrier=barrier).result(60)
    assert sorted(row.id for row in rows) == list(range(20))
    assert told == ["A worker was lost, and all workers restart."]


def test_a_barrier_stage_runs_again_as_often_as_spark_would_restart_it(spark, monkeypatch):
    """With real executors; those of local[N] fail only once."""
    runs, before = [], []

    class Frame:
        sparkSession = spark  # noqa: N815 (Spark's own custom)

        def select(self, _):
            return self

        def collect(self):
            runs.append(1)
            raise RuntimeError(
                f"Job aborted due to stage failure: {LOST_BARRIER}. Most recent failure reason: .."
            )

    monkeypatch.setattr("distkeras.cluster.stage.tries_once", lambda _: False)
    stage = Stage(Frame(), "tests", lambda _: None, barrier=True, before_again=lambda: before.append(1))
    with pytest.raises(RuntimeError, match="Could not recover"):
        stage.result(60)
    assert (len(runs), len(before)) == (4, 3)
    with pytest.raises(RuntimeError, match="Could not recover"):
        Stage(Frame(), "tests", lambda _: None).result(60)
    assert len(runs) == 5


def test_spark_says_where_each_task_of_a_stage_runs(spark):
    def hold(batches):
        time.sleep(3)
        yield from batches

    stage = Stage(spark.range(0, 2, 1, 2).mapInArrow(hold, "id long"), "tests")
    stage.start()
    deadline = time.monotonic() + 30
    while len(running := [t for t in task_statuses(spark, stage.tag) if t.status == "RUNNING"]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sorted(task.partition for task in running) == [0, 1]
    assert all(task.where.startswith("executor driver on ") for task in running)
    assert all(0 <= task.seconds < 30 for task in running)
    assert task_statuses(spark, "another") == []
    stage.cancel()


def test_tasks_at_once_are_counted_by_each_executors_own_clock():
    spans = [("a", 0.0, 1.0), ("a", 0.9, 2.0), ("a", 2.0, 3.0), ("b", 1000.0, 1001.0), ("b", 1001.0, 1002.0)]
    assert at_once(spans) == 3
    assert at_once([]) == 0


def test_over_spark_connect_short_tasks_find_out_the_number_of_slots(spark, monkeypatch):
    monkeypatch.setattr(slots, "is_remote", lambda: True)
    monkeypatch.setattr(slots, "HOLD_SECONDS", 0.3)
    assert count_slots(spark, 3) == count_slots(spark) == 2
    monkeypatch.setattr(slots, "is_local", lambda _: False)
    monkeypatch.setattr(slots, "REGISTRATION_SECONDS", 3.0)
    with pytest.raises(
        NotEnoughSlots, match=r"needs 3 task slots .* application with 2 that were free at one"
    ):
        check_slots(spark, 3, together=True)
    assert check_slots(spark, 2, together=True) == 2
    assert check_slots(spark, 9, together=False) is None


def test_with_dynamic_allocation_tasks_that_wait_let_executors_come(spark, monkeypatch):
    """What Spark itself does is tried in tests/clusters."""
    registered, stages = iter([0, 3, 3]), []
    monkeypatch.setattr(slots, "allocates_dynamically", lambda _: True)
    monkeypatch.setattr(slots, "registered_slots", lambda *_: next(registered))
    monkeypatch.setattr(slots, "ALLOCATION_HOLD_SECONDS", 0.0)
    monkeypatch.setattr(slots, "Stage", lambda frame, what: stages.append(frame) or Stage(frame, what))
    assert check_slots(spark, 3, together=True) == 3
    assert [frame.count() for frame in stages] == [3]
    assert count_slots(spark, 3) == 3
    assert len(stages) == 1  # There are enough of them.


def test_an_executor_that_cannot_reach_a_server_is_named_with_the_address(spark, monkeypatch):
    monkeypatch.setattr(reach, "is_local", lambda _: False)
    port = int(spark.conf.get("spark.driver.port"))  # Something listens there.
    here = SimpleNamespace(host="127.0.0.1", port=port)
    check_reachable(spark, [here], 2)
    with pytest.raises(ServerUnreachable) as refused:
        check_reachable(spark, [here, SimpleNamespace(host="127.0.0.1", port=1)], 2)
    assert "cannot reach parameter server 1 at 127.0.0.1:1: connection refused." in str(refused.value)
    assert "server 0" not in str(refused.value)
    assert "ServerOptions(host=..., bind=...)" in str(refused.value)
