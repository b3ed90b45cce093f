"""Trains on `local-cluster[2,1,1024]`: executors in JVMs and working directories of their own.

Run by test_processes.py, since a process has one Spark. Arguments: a folder, and what to do there, in turn.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import psutil
from pyspark.ml import PipelineModel
from pyspark.sql import SparkSession

import distkeras
from distkeras.trainers import training
from distkeras.worker import payload

ROWS, EPOCHS = 2000, 3


def make_session():
    os.environ["PYSPARK_PYTHON"] = sys.executable
    # `local-cluster` starts its executors by Spark's own scripts.
    import pyspark

    os.environ.setdefault("SPARK_HOME", os.path.dirname(pyspark.__file__))
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.executor.memory", "1g")
        .config("spark.python.daemon.module", "distkeras.worker.daemon")
        .config("spark.executorEnv.KERAS_BACKEND", keras.backend.backend())
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    # The second executor may come late; a rule that needs both must not be refused for that.
    deadline = time.monotonic() + 60
    while (
        session.sparkContext._jsc.sc().maxNumConcurrentTasks(
            session.sparkContext._jsc.sc().resourceProfileManager().defaultResourceProfile()
        )
        < 2
    ):
        if time.monotonic() > deadline:
            raise TimeoutError("the executors did not come up")
        time.sleep(0.1)
    return session


def slow_model(pause):
    """A model whose steps take a while, so that there is time to kill a worker in the middle."""

    class Slow(keras.Model):
        def train_step(self, *arguments):
            import jax

            def wait():
                import time

                time.sleep(pause)

            jax.debug.callback(wait)
            return super().train_step(*arguments)

    inputs = keras.Input((4,))
    return Slow(inputs, keras.layers.Dense(1)(inputs)), {"Slow": Slow}


def make_trainer(trainer, pause, **options):
    model, custom_objects = slow_model(pause)
    return getattr(distkeras, trainer)(
        model,
        "sgd",
        "mse",
        batch_size=20,
        communication_window=5,
        num_epoch=EPOCHS,
        custom_objects=custom_objects,
        seed=0,
        **options,
    )


def snapshots_in(folder):
    return distkeras.ServerOptions(snapshots=distkeras.SnapshotOptions(str(folder / "snapshots"), commits=3))


def make_frame(spark):
    generator = np.random.default_rng(0)
    rows = pd.DataFrame({"features": list(generator.normal(size=(ROWS, 4))), "label": np.zeros(ROWS)})
    return spark.createDataFrame(rows).repartition(2)


def server_processes():
    return [p for p in psutil.Process().children(recursive=True) if "distkeras.wire" in cmd(p)]


def python_workers():
    """The Python processes that Spark's executors run, without the daemons that fork them."""
    everyone = psutil.Process().children(recursive=True)
    daemons = {q.pid for q in everyone if "pyspark.daemon" in cmd(q) or "worker.daemon" in cmd(q)}
    return [p for p in everyone if p.ppid() in daemons]


def executors():
    """The JVMs of Spark's executors."""
    return [p for p in psutil.Process().children(recursive=True) if "CoarseGrainedExecutor" in cmd(p)]


def cmd(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def check_windows(trainer):
    """Every window of both workers is in the history exactly once."""
    history = trainer.get_history()
    for worker in (0, 1):
        own = trainer.get_executor_history(worker)
        assert [window.iteration for window in own] == list(range(len(own))), own
    assert sum(window.samples for window in history) == ROWS * EPOCHS
    assert trainer.num_updates == len(history) or trainer.algorithm.synchronous


def plain(spark):
    for name in ("DOWNPOUR", "LocalSGD"):
        trainer = make_trainer(name, 0.0)
        trainer.train(make_frame(spark))
        check_windows(trainer)


def predict(spark, folder):
    """Predict by the pipeline that another process saved, with executors that never saw it."""
    rows = spark.read.parquet(str(folder / "rows"))
    predicted = PipelineModel.load(str(folder / "pipeline")).transform(rows)
    predicted.write.parquet(str(folder / "predicted"))


def kill(spark, name, victims):
    """SIGKILL one after the other in the middle; Spark starts them again and nothing is lost or doubled.

    Args:
        victims: "python" for a worker's process, "executor" for a JVM with all that runs in it.
    """
    killed = []
    trainer = make_trainer(name, 0.02)
    joined = []
    bar = training.ProgressBar

    class Watching(bar):
        def __call__(self, event):
            if type(event).__name__ == "WorkerJoined":
                joined.append(event)
            super().__call__(event)

    training.ProgressBar = Watching

    def kill_all():
        for number, victim in enumerate(victims, start=1):
            while len(trainer.get_history()) < 12 * number:
                time.sleep(0.02)
            # Of the Python workers the one that trains, not one that waits for work.
            candidates = executors() if victim == "executor" else python_workers()
            process = max(candidates, key=lambda candidate: candidate.memory_info().rss)
            killed.extend([process, *process.children(recursive=True)])
            process.kill()

    thread = threading.Thread(target=kill_all)
    thread.start()
    trainer.train(make_frame(spark))
    thread.join()
    check_windows(trainer)
    assert len(killed) >= len(victims)
    _, alive = psutil.wait_procs(killed, timeout=30)  # With a JVM, the Python processes that it ran.
    assert not alive, alive
    again = [event for event in joined if event.attempt > 0 or (event.epoch, event.step) != (0, 0)]
    assert again, joined
    assert any((event.epoch, event.step) != (0, 0) for event in again), again
    servers = server_processes()
    assert not servers, servers


def train_for_long(spark, folder, name):
    """Train in the folder `name` until something ends this; tell the test which processes there are."""
    folder = folder / name
    folder.mkdir()
    trainer = make_trainer("DOWNPOUR", 0.2, server=snapshots_in(folder))

    def tell():
        while len(trainer.get_history()) < 3:
            time.sleep(0.02)
        everyone = psutil.Process().children(recursive=True)
        (folder / "pids.part").write_text(" ".join(str(p.pid) for p in everyone))
        (folder / "pids.part").rename(folder / "pids")

    threading.Thread(target=tell, daemon=True).start()
    trainer.train(make_frame(spark))
    if trainer.result.reason == "interrupt":
        servers = server_processes()
        # Spark keeps its Python workers for the next job; they must not train on.
        jobs = spark.sparkContext.statusTracker().getActiveJobsIds()
        print("interrupted with", len(servers), "servers and", len(jobs), "jobs", flush=True)


def do(spark, folder, what):
    match what.split():
        case ["plain"]:
            plain(spark)
        case ["predict"]:
            predict(spark, folder)
        case ["kill", name, *victims]:
            kill(spark, name, victims)
        case ["long", name]:
            train_for_long(spark, folder, name)


def main():
    # A model that goes to the executors in many pieces.
    payload.SMALL_BYTES, payload.CHUNK_BYTES = 0, 5000
    folder, spark = Path(sys.argv[1]), make_session()
    for what in sys.argv[2:]:
        try:
            do(spark, folder, what)
        except Exception:
            print(f"{what}: {traceback.format_exc()}", flush=True)
        else:
            print(f"{what}: done", flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
