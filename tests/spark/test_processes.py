"""Executors in processes of their own, workers that are killed, drivers that are interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_script
import keras
import psutil
import pytest
from pyspark.ml import PipelineModel

from distkeras.ml import KerasClassificationModel
from distkeras.transformers import MinMaxTransformer

SCRIPT = Path(__file__).parent / "cluster_script.py"
SOAK = "DISTKERAS_SOAK" in os.environ


KILLED = ["kill DOWNPOUR python executor", "kill LocalSGD python"]
if SOAK:
    KILLED.append("kill LocalSGD executor")  # A new JVM, and both workers anew: ten seconds.


@pytest.fixture(scope="module")
def pipeline(spark, tmp_path_factory):
    """Return a saved pipeline, and the folder where it and rows for it lie."""
    folder = tmp_path_factory.mktemp("cluster")
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    rows = spark.range(0, 500, 1, 2).selectExpr("id", "transform(array(1, 2, 3, 4), n -> rand(1) * n) AS x")
    rows.write.parquet(str(folder / "rows"))
    scaler = MinMaxTransformer(0, 4, -1, 1, "x", "features")
    pipeline = PipelineModel([scaler, KerasClassificationModel(network)])
    pipeline.save(str(folder / "pipeline"))
    return pipeline, folder


@pytest.fixture(scope="module")
def output(pipeline):
    """What the script prints: all in one session, whose executors take half a minute to come up."""
    _, folder = pipeline
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, "plain", "predict", *KILLED],
        cwd=folder,  # Nothing of this checkout is importable by accident.
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_trains_on_executors_with_directories_of_their_own(output):
    assert "plain: done" in output


def test_a_pipeline_from_another_process_predicts_the_same_bits_on_them(spark, pipeline, output):
    assert "predict: done" in output
    model, folder = pipeline
    rows = spark.read.parquet(str(folder / "rows"))
    there = spark.read.parquet(str(folder / "predicted")).orderBy("id").collect()
    assert there == model.transform(rows).orderBy("id").collect()


@pytest.mark.parametrize("what", KILLED)
def test_killed_workers_and_executors_resume_and_no_window_is_lost_or_doubled(output, what):
    assert f"{what}: done" in output, output


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_of_an_interrupted_or_killed_driver_nothing_is_left_but_what_another_resumes(spark, tmp_path, how):
    driver = subprocess.Popen(
        [sys.executable, SCRIPT, tmp_path, "long"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "pids").exists():
            assert time.monotonic() < deadline
            assert driver.poll() is None
            time.sleep(0.1)
        processes = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
        assert any("distkeras.wire" in " ".join(p.cmdline()) for p in processes)
        os.kill(driver.pid, how)
        output, _ = driver.communicate(timeout=60)
        if how == signal.SIGINT:
            assert "interrupted with 0 servers and 0 jobs" in output
        _, alive = psutil.wait_procs(processes, timeout=60)
        assert alive == []
    finally:
        driver.kill()
        driver.wait()
    if how == signal.SIGKILL:
        resume(spark, tmp_path)


def resume(spark, folder):
    """Go on in this process, on other executors, with the training whose driver was killed."""
    trainer = cluster_script.make_trainer("DOWNPOUR", 0.0, server=cluster_script.snapshots_in(folder))
    trainer.train(cluster_script.make_frame(spark), resume=True)
    trained_before = 0
    for worker in (0, 1):
        iterations = [window.iteration for window in trainer.get_executor_history(worker)]
        assert iterations == list(range(iterations[0], 30))
        trained_before += iterations[0]
    assert trained_before >= 3
    assert trainer.num_updates == 60
