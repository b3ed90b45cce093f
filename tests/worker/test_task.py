"""A worker's task: what it keeps between processes, and what becomes of one that is told to stop."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import pytest

from distkeras.wire.client import JobStopped, Replaced, ServerAddress
from distkeras.worker import task
from distkeras.worker.task import _keep_compiled


def test_compiled_steps_lie_in_a_folder_of_this_user_alone(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": f"{tmp_path},/elsewhere"}
    _keep_compiled(environment)
    folder = tmp_path / "distkeras-compiled"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_place_that_the_executors_name_for_compiled_steps_comes_first(tmp_path):
    environment = {"SPARK_LOCAL_DIRS": str(tmp_path), "JAX_COMPILATION_CACHE_DIR": "/theirs"}
    _keep_compiled(environment)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "/theirs"
    assert list(tmp_path.iterdir()) == []


def test_nothing_compiled_is_kept_outside_spark():
    environment = {}
    _keep_compiled(environment)
    assert environment == {}


def test_a_second_process_compiles_nothing_anew(tmp_path):
    code = """
from distkeras.worker.task import prepare_process
prepare_process("jax", 1)
import jax
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event.rsplit("/", 1)[-1]))
print(float(jax.jit(lambda x: (x * x).sum())(jax.numpy.arange(4.0))))
print("cache_hits" in found, "cache_misses" in found)
"""
    environment = os.environ | {"SPARK_LOCAL_DIRS": str(tmp_path)}
    for expected in (["14.0", "False True"], ["14.0", "True False"]):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert run.stdout.splitlines() == expected, run.stderr


def run(monkeypatch, told):
    """Run a task whose training ends by what the server said."""

    def train(*_):
        raise told

    monkeypatch.setattr(task, "prepare_process", lambda *_: None)
    monkeypatch.setattr(task, "_train", train)
    server = ServerAddress("nowhere", 0, b"t" * 32, 4)
    envelope = task.Envelope(pickle.dumps(None), (server,), 1.0, "jax", 1, 30.0)
    return task.run(envelope, task.Start(0, 0, 0), iter(()))


def test_a_task_of_a_job_that_is_over_ends_without_an_error(monkeypatch):
    assert run(monkeypatch, JobStopped("The driver ended the job.")) is None


def test_a_task_that_was_replaced_is_no_finished_one_to_spark(monkeypatch):
    """Else Spark would take the partition for done, and end its replacement with the stage."""
    with pytest.raises(Replaced):
        run(monkeypatch, Replaced("Another process is this worker now."))
