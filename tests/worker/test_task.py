"""What becomes of a worker's task that is told to stop."""

from __future__ import annotations

import pickle

import pytest

from distkeras.wire.client import JobStopped, Replaced, ServerAddress
from distkeras.worker import task


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
