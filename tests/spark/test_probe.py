"""What the executors lack is found out before any worker starts."""

from __future__ import annotations

import re
import sys
import threading
import venv

import keras
import pytest

from distkeras import SingleTrainer
from distkeras.cluster import probe, session, settings
from distkeras.cluster.probe import ExecutorsNotReady, check_executors, check_python
from distkeras.cluster.session import local_session
from distkeras.cluster.settings import python_of_executors
from distkeras.predictors import ModelPredictor
from distkeras.worker.gpus import Sharing


def test_a_backend_that_the_executors_lack_is_named_with_their_python(spark):
    with pytest.raises(ExecutorsNotReady, match=r"no_such_backend missing in .*python.*Install"):
        check_executors(spark, "no_such_backend", 1, 2)


def test_a_python_that_cannot_be_used_is_named_beside_the_drivers_own(spark, monkeypatch, tmp_path):
    """One of the same version without pyarrow, one of another version, and none."""
    venv.create(tmp_path / "bare", symlinks=True)
    bare = str(tmp_path / "bare" / "bin" / "python")
    context, sees = spark.sparkContext, "The driver runs on " + re.escape(sys.executable)
    monkeypatch.setattr(probe, "_ready", {})
    monkeypatch.setattr(context, "pythonExec", bare)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    lacking = (
        r"Expected .* to have pyarrow, .*jax\. Received there: "
        rf"pyarrow, .*keras.* missing in {bare} on \S+\. {sees}"
    )
    with pytest.raises(ExecutorsNotReady, match=lacking):
        check_executors(spark, "jax", 1, 2)
    with pytest.raises(ExecutorsNotReady, match=lacking + r".*PYSPARK_PYTHON or `spark\.pyspark\.python`"):
        ModelPredictor(model, "id").predict(spark.range(1))
    monkeypatch.setattr(context, "pythonVer", "2.7")
    with pytest.raises(ExecutorsNotReady, match=rf"{bare} is of version 3\.\d+\. {sees}"):
        check_python(spark, "jax")
    monkeypatch.setattr(context, "pythonExec", "/no/such/python")
    with pytest.raises(ExecutorsNotReady, match=rf"there is no /no/such/python\. {sees}"):
        SingleTrainer(model, "sgd", "mse", features_col="id", label_col="id").train(spark.range(1))


def test_the_executors_of_this_machine_run_the_drivers_own_python_unless_one_is_chosen(spark, monkeypatch):
    context = spark.sparkContext
    monkeypatch.setattr(context, "pythonExec", "python3")
    monkeypatch.delenv("PYSPARK_PYTHON")
    assert python_of_executors(spark) == context.pythonExec == sys.executable
    monkeypatch.setattr(context, "pythonExec", "python3")
    monkeypatch.setattr(settings, "is_local", lambda _: False)
    assert python_of_executors(spark) == "python3"
    monkeypatch.setattr(context, "pythonExec", "python3")
    monkeypatch.setenv("PYSPARK_PYTHON", "python3")
    assert python_of_executors(spark) == "python3"


def test_a_local_session_makes_its_python_workers_ready_ahead(spark, monkeypatch):
    asked = []
    done = threading.Event()

    def note(_, *arguments, sharing):
        asked.append((*arguments, sharing))
        done.set()

    monkeypatch.setattr(session, "check_executors", note)
    monkeypatch.setattr(session, "ask_ready", lambda _, *given: asked.append(("before", *given[:2])))
    assert local_session(backend="jax") is spark
    assert done.wait(20)
    # Two workers, if there is a GPU, share it. Before them one task had the daemon started, and took none.
    assert asked == [("before", "jax", 1), ("jax", 1, 2, Sharing(machine=2))]


def test_executors_that_are_ready_are_asked_once(spark, monkeypatch):
    check_executors(spark, "jax", 1, 2)
    monkeypatch.setattr(probe, "ask", None)  # A second time it would be needed.
    check_executors(spark, "jax", 1, 2)


def test_executors_that_do_not_answer_are_given_up_and_their_tasks_ended(spark, monkeypatch):
    monkeypatch.setattr(probe, "_ready", {})
    with pytest.raises(ExecutorsNotReady, match=r"within 0 s\. Received: no answer"):
        check_executors(spark, "jax", 1, 2, limit=0.0)
    monkeypatch.setattr(probe, "_is_own_python", lambda _: False)
    with pytest.raises(ExecutorsNotReady, match=r"on an executor within 0 s\. Received: no answer"):
        check_python(spark, "jax", limit=0.0)
    assert list(spark.sparkContext.statusTracker().getActiveJobsIds()) == []
