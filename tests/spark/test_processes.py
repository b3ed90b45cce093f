"""Executors in processes of their own, workers that are killed, drivers that are interrupted or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cluster_script
import keras
import psutil
import pytest
from pyspark.ml import PipelineModel
from starting import without_tensorflow

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


def processes_of(driver, file, out):
    """Wait until the script has written `file`; return the processes that it names.

    Each of its trainings may take five minutes: it writes to `out` at the end of each.
    """
    deadline, written = time.monotonic() + 300, 0
    while not file.exists():
        if (size := out.stat().st_size) > written:
            deadline, written = time.monotonic() + 300, size
        assert time.monotonic() < deadline
        assert driver.poll() is None
        time.sleep(0.1)
    processes = [psutil.Process(int(pid)) for pid in file.read_text().split()]
    assert servers_among(processes)
    return processes


def servers_among(processes):
    return [p for p in processes if "distkeras.wire" in cluster_script.cmd(p)]


@pytest.fixture(scope="module")
def cluster(pipeline, tmp_path_factory):
    """All in one session, whose executors take half a minute to come up, until its driver is killed.

    Returns:
        What the script prints, and what is alive of the servers of the training that is interrupted and of
        all processes of the driver that is killed, half a minute later.
    """
    (_, folder), hidden = pipeline, tmp_path_factory.mktemp("hidden")
    command = [sys.executable, SCRIPT, folder, "plain", "predict", *KILLED, "long interrupted", "long killed"]
    out, err = folder / "out", folder / "err"
    with out.open("w") as stdout, err.open("w") as stderr:
        # In that folder nothing of this checkout is importable by accident.
        driver = subprocess.Popen(
            command, cwd=folder, env=os.environ | without_tensorflow(hidden), stdout=stdout, stderr=stderr
        )
    try:
        servers = servers_among(processes_of(driver, folder / "interrupted" / "pids", out))
        os.kill(driver.pid, signal.SIGINT)
        _, of_the_interrupted = psutil.wait_procs(servers, timeout=60)
        processes = processes_of(driver, folder / "killed" / "pids", out)
        os.kill(driver.pid, signal.SIGKILL)
        _, of_the_killed = psutil.wait_procs(processes, timeout=60)
    except BaseException:
        print(out.read_text(), err.read_text()[-4000:])
        raise
    finally:
        driver.kill()
        driver.wait()
    return SimpleNamespace(
        output=out.read_text(), of_the_interrupted=of_the_interrupted, of_the_killed=of_the_killed
    )


def test_trains_on_executors_with_directories_of_their_own(cluster):
    assert "plain: done" in cluster.output


def test_a_pipeline_from_another_process_predicts_the_same_bits_on_them(spark, pipeline, cluster):
    assert "predict: done" in cluster.output
    model, folder = pipeline
    rows = spark.read.parquet(str(folder / "rows"))
    there = spark.read.parquet(str(folder / "predicted")).orderBy("id").collect()
    assert there == model.transform(rows).orderBy("id").collect()


@pytest.mark.parametrize("what", KILLED)
def test_killed_workers_and_executors_resume_and_no_window_is_lost_or_doubled(cluster, what):
    assert f"{what}: done" in cluster.output, cluster.output


def test_an_interrupted_training_leaves_nothing_and_its_session_trains_the_next(cluster):
    assert cluster.of_the_interrupted == []
    assert "interrupted with 0 servers and 0 jobs" in cluster.output
    assert "long interrupted: done" in cluster.output


def test_of_a_killed_driver_nothing_is_left_but_what_another_resumes(spark, pipeline, cluster):
    assert cluster.of_the_killed == []
    _, folder = pipeline
    resume(spark, folder / "killed")


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
