"""What the executors lack is found out before any worker starts."""

from __future__ import annotations

import threading

import pytest

from distkeras.cluster import probe
from distkeras.cluster.probe import ExecutorsNotReady, check_executors
from distkeras.cluster.session import local_session


def test_a_backend_that_the_executors_lack_is_named_with_their_python(spark):
    with pytest.raises(ExecutorsNotReady, match=r"no_such_backend missing in .*python.*Install"):
        check_executors(spark, "no_such_backend", 1, 2)


def test_a_local_session_makes_its_python_workers_ready_ahead(spark, monkeypatch):
    asked = []
    done = threading.Event()

    def note(session, *arguments):
        asked.append(arguments)
        done.set()

    monkeypatch.setattr(probe, "check_executors", note)
    assert local_session(backend="jax") is spark
    assert done.wait(20)
    assert asked == [("jax", 1, 2)]


def test_executors_that_are_ready_are_asked_once(spark, monkeypatch):
    check_executors(spark, "jax", 1, 2)
    monkeypatch.setattr(probe, "_importer", None)  # A second time it would be needed.
    check_executors(spark, "jax", 1, 2)


def test_executors_that_do_not_answer_are_given_up_and_their_tasks_ended(spark, monkeypatch):
    monkeypatch.setattr(probe, "_ready", {})
    with pytest.raises(ExecutorsNotReady, match=r"within 0 s\. Received: no answer"):
        check_executors(spark, "jax", 1, 2, limit=0.0)
    assert list(spark.sparkContext.statusTracker().getActiveJobsIds()) == []
