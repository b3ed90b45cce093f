"""Executors in processes of their own, workers that are killed, drivers that are interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import psutil
import pytest
from pyspark.ml import PipelineModel

from distkeras.ml import KerasClassificationModel
from distkeras.transformers import MinMaxTransformer

SCRIPT = Path(__file__).parent / "cluster_script.py"
SOAK = "DISTKERAS_SOAK" in os.environ


def run(folder, *arguments):
    """Run the script in `folder`, from where nothing of this checkout is importable by accident."""
    done = subprocess.run(
        [sys.executable, SCRIPT, arguments[0], folder, *arguments[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_trains_and_predicts_on_executors_with_directories_of_their_own(spark, tmp_path):
    """The pipeline comes from this process, and predicts the same bits there."""
    network = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    rows = spark.range(0, 500, 1, 2).selectExpr("id", "transform(array(1, 2, 3, 4), n -> rand(1) * n) AS x")
    rows.write.parquet(str(tmp_path / "rows"))
    rows = spark.read.parquet(str(tmp_path / "rows"))
    scaler = MinMaxTransformer(0, 4, -1, 1, "x", "features")
    pipeline = PipelineModel([scaler, KerasClassificationModel(network)])
    pipeline.save(str(tmp_path / "pipeline"))
    output = run(tmp_path, "plain")
    assert "trained" in output
    assert "predicted" in output
    there = spark.read.parquet(str(tmp_path / "predicted")).orderBy("id").collect()
    assert there == pipeline.transform(rows).orderBy("id").collect()


KILLED = [("DOWNPOUR", "python", "executor"), ("LocalSGD", "python")]
if SOAK:
    KILLED.append(("LocalSGD", "executor"))  # A new JVM and both workers anew: ten seconds.


@pytest.mark.parametrize("arguments", KILLED, ids=" ".join)
def test_killed_workers_and_executors_resume_and_no_window_is_lost_or_doubled(tmp_path, arguments):
    assert "survived" in run(tmp_path, "kill", *arguments)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_survives_a_driver_that_is_interrupted_or_killed(tmp_path, how):
    driver = subprocess.Popen(
        [sys.executable, SCRIPT, "long", tmp_path], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
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
