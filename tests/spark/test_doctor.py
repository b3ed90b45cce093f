"""`trainer.check` and the doctor on a real session: what stands in the way of a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import keras
import pytest

from distkeras import ADAG, EnsembleTrainer, LocalSGD, Resources, SingleTrainer
from distkeras.cluster import probe
from distkeras.cluster.resources import gpus_of_worker
from distkeras.doctor import NotReady, checkup
from distkeras.trainers import SkewedLabelsWarning
from distkeras.trainers.checking import wanted_by


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def rows(spark):
    return spark.range(0, 60, 1, 2).selectExpr("array(rand(1), rand(2)) AS features", "rand(3) AS label")


def test_a_training_that_can_run_has_nothing_to_mend_and_leaves_nothing(spark, model, tmp_path):
    trainer = ADAG(model, "sgd", "mse", num_epoch=2)
    diagnosis = trainer.check(rows(spark), run=tmp_path / "run")
    diagnosis.raise_if_bad()
    about = {finding.about for finding in diagnosis.findings}
    assert about >= {"data", "executors", "slots", "versions", "clocks", "disk", "memory", "run directory"}
    assert list(tmp_path.iterdir()) == []
    assert len(trainer.get_history()) == 0


def test_all_that_stands_in_the_way_is_said_at_once(spark, model, tmp_path):
    (tmp_path / "file").write_text("")
    trainer = LocalSGD(model, "sgd", "mse", num_workers=5)
    diagnosis = trainer.check(rows(spark).drop("label"), run=tmp_path / "file" / "run")
    found = {finding.about: str(finding) for finding in diagnosis.errors}
    assert "can write to" in found["run directory"]
    assert "Column 'label' is not in the DataFrame" in found["data"]
    assert "5 workers, and 2 tasks can run at once" in found["slots"]
    with pytest.raises(NotReady, match="slots"):
        diagnosis.raise_if_bad()


def test_executors_without_a_package_or_an_answer_are_findings(spark, model, monkeypatch):
    monkeypatch.setattr(probe, "NEEDED", (*probe.NEEDED, "no_such_package"))
    trainer = ADAG(model, "sgd", "mse")
    (finding,) = trainer.check(rows(spark)).errors
    assert "no_such_package missing in" in finding.what
    monkeypatch.undo()
    (finding,) = trainer.check(rows(spark), limit=0.0).errors
    assert "Received: no answer." in finding.what
    assert "spark.executor.memory=1g" in finding.fix


def test_labels_that_differ_between_workers_are_told_before_and_by_the_training(spark, model):
    sorted_by_label = spark.range(0, 200, 1, 2).selectExpr("array(1f, 2f) AS features", "id AS label")
    trainer = ADAG(model, "sgd", "mse")
    (told,) = (finding for finding in trainer.check(sorted_by_label).findings if finding.level == "warning")
    assert "75% of the variance of column 'label' lies between them" in told.what
    with pytest.warns(SkewedLabelsWarning, match=r"shuffle=True"):
        trainer.train(sorted_by_label)


def test_a_streaming_frame_is_a_finding(spark, model):
    stream = spark.readStream.format("rate").load().selectExpr("value AS features", "value AS label")
    (finding,) = ADAG(model, "sgd", "mse").check(stream).errors
    assert "Expected a batch DataFrame. Received: a streaming one" in finding.what


def test_an_ensemble_needs_memory_for_a_center_of_each_member():
    wide = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])
    (one,) = wanted_by(SingleTrainer(wide, "sgd", "mse"), None).server_bytes
    (five,) = wanted_by(EnsembleTrainer(wide, "sgd", "mse", num_ensembles=5), None).server_bytes
    assert sum(five.values()) > sum(one.values()) + 4 * 1000 * 1001 * 4


def test_the_gpus_of_a_trainers_resources_are_looked_for(spark, model):
    assert gpus_of_worker(spark, wanted_by(ADAG(model, "sgd", "mse"), None).resources) == 0
    half = ADAG(model, "sgd", "mse", resources=Resources(gpus=0.5))
    assert gpus_of_worker(spark, wanted_by(half, None).resources) == 0.5


def test_where_gpus_are_python_workers_are_prepared_as_the_training_would(spark, model, monkeypatch):
    prepared = []

    def with_gpu(spark, backend, num_tasks, limit, prepare=None, further=()):
        prepared.append(prepare)
        return [replace(each, gpus=(1, 1)) for each in probe.ask_ready(spark, backend, num_tasks, limit)]

    monkeypatch.setattr(checkup, "ask_ready", with_gpu)
    for resources in (None, Resources(cores=2, gpus=0.5)):
        ADAG(model, "sgd", "mse", resources=resources).check(rows(spark))
        # Two workers share the machine's GPU. With resources of its own a training has other Python workers.
        assert prepared.pop() == (keras.backend.backend(), 1, 1, 2)


def test_the_command_says_what_to_mend_and_ends_with_1(tmp_path):
    command = [sys.executable, "-m", "distkeras", "doctor", "--backend", "jax", "--json"]
    done = subprocess.run(
        [*command, "--remote", "sc://127.0.0.1:1"], capture_output=True, text=True, timeout=60
    )
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert [finding["about"] for finding in told["findings"] if finding["level"] == "error"] == ["master"]
    without = os.environ | {"JAVA_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=without)
    (java,) = (finding for finding in json.loads(done.stdout)["findings"] if finding["level"] == "error")
    assert (java["about"], done.returncode) == ("Java", 1)
    both = [*command, "--remote", "sc://a", "--master", "local"]
    assert subprocess.run(both, capture_output=True, timeout=60).returncode == 2
