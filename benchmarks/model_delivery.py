"""What does it cost to send a large model to the workers? Memory of the driver and seconds. JSON out.

A driver in a process of its own makes a model of dense layers, trains it for one minibatch with one worker,
and predicts a few rows; before that, the same with a small model. Memory is the kernel's own peak (VmHWM) of
the driver's Python process, less what it had before it made the large model, in sizes of the model: the model
itself counts. So it is for the driver's JVM (on Spark Connect: the server's).

python benchmarks/model_delivery.py [--megabytes 400] [--masters local[1] local-cluster[1,1,4096] connect]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import recording

WIDTH = 4000
PATIENCE = 1200.0


def peak(process: int) -> float:
    """Return the most memory that a process has had in use, in MB."""
    return _status(process, "VmHWM")


def _status(process: int, name: str) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024 / 1e6


def reset(process: int) -> float:
    """Have the kernel count the peak from now; return what the process has in use, in MB."""
    Path(f"/proc/{process}/clear_refs").write_text("5")
    return _status(process, "VmRSS")


def session(master: str, memory: str) -> Any:
    """Return a Spark session, or a session of Spark Connect with a server of its own."""
    import pyspark
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_HOME", os.path.dirname(pyspark.__file__))
    builder = SparkSession.builder
    builder = builder.remote("local[1]") if master == "connect" else builder.master(master)
    for name in ("spark.driver.host", "spark.driver.bindAddress"):
        builder = builder.config(name, "127.0.0.1")
    builder = builder.config("spark.driver.memory", memory)
    return builder.config("spark.ui.enabled", "false").config("spark.log.level", "ERROR").getOrCreate()


def jvms() -> list[int]:
    """Return the JVMs of the driver's side: not those of executors."""
    everyone = [p for p in psutil.process_iter() if p.is_running() and p.name() == "java"]
    mine = {p.pid for p in psutil.Process().children(recursive=True)}
    session = os.getsid(0)
    own = [p for p in everyone if p.pid in mine or os.getsid(p.pid) == session]
    return [p.pid for p in own if "CoarseGrainedExecutor" not in " ".join(p.cmdline())]


def make_model(megabytes: float) -> Any:
    """Return a model of dense layers with this many megabytes of weights."""
    import keras

    layers = [keras.Input((WIDTH,))]
    rest = int(megabytes * 1e6 / 4 / WIDTH)
    while rest > 0:
        layers.append(keras.layers.Dense(min(rest, WIDTH), use_bias=False, kernel_initializer="zeros"))
        rest -= WIDTH
    model = keras.Sequential([*layers, keras.layers.Dense(1, use_bias=False)])
    generator = np.random.default_rng(0)
    for weight in model.weights:  # Zeros would be compressed away.
        weight.assign(generator.standard_normal(weight.shape, np.float32) / WIDTH)
    return model


def drive(master: str, megabytes: float, memory: str) -> dict[str, Any]:
    """Train and predict in this process; return what it took."""
    import pandas as pd

    from distkeras import DOWNPOUR, ServerOptions
    from distkeras.predictors import ModelPredictor

    spark = session(master, memory)
    server = ServerOptions(host="127.0.0.1")
    rows = pd.DataFrame({"features": list(np.ones((4, WIDTH), np.float32)), "label": np.zeros(4, np.float32)})
    frame = spark.createDataFrame(rows).repartition(1)
    for _ in range(2):
        small = make_model(1)
        DOWNPOUR(small, "sgd", "mse", num_workers=1, batch_size=4, server=server).train(frame)
        ModelPredictor(small).predict(frame).collect()
    before, (jvm,) = reset(os.getpid()), jvms()
    jvm_before = reset(jvm)
    model = make_model(megabytes)
    size = 4 * model.count_params() / 1e6
    found: dict[str, Any] = {"model, MB": round(size)}

    def take(phase: str) -> None:
        found[f"{phase}: driver's peak, models"] = round((peak(os.getpid()) - before) / size, 2)
        found[f"{phase}: JVM's peak, models"] = round((peak(jvm) - jvm_before) / size, 2)
        reset(os.getpid())
        print(json.dumps(found), file=sys.stderr, flush=True)

    take("making the model")
    trainer = DOWNPOUR(
        model, "sgd", "mse", num_workers=1, batch_size=4, communication_window=1, server=server
    )
    take("making the trainer")
    started = time.time()
    trainer.train(frame)
    (window,) = trainer.get_history()
    found["seconds to the first window"] = round(window.timestamp - started, 1)
    found["seconds of the training"] = round(time.time() - started, 1)
    take("training")
    del trainer
    started = time.time()
    ModelPredictor(model).predict(frame).select("prediction").collect()
    found["seconds of the prediction"] = round(time.time() - started, 1)
    take("predicting")
    spark.stop()
    return found


def main() -> None:
    """Measure each master in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=400)
    parser.add_argument("--masters", nargs="+", default=["local[1]", "local-cluster[1,1,1024]", "connect"])
    parser.add_argument("--memory", default="1g", help="heap of the driver's JVM: Spark's default is 1g")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        print("found", json.dumps(drive(options.drive, options.megabytes, options.memory)))
        return
    record = recording.begin(__file__)
    results = {}
    for master in options.masters:
        command = [sys.executable, __file__, "--drive", master, "--megabytes", str(options.megabytes)]
        command += ["--memory", options.memory]
        with tempfile.TemporaryDirectory() as folder:
            run = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                cwd=folder,
                start_new_session=True,
                env={"KERAS_BACKEND": "jax"} | os.environ,
            )
        found = [line.removeprefix("found ") for line in run.stdout.splitlines() if line.startswith("found ")]
        results[master] = json.loads(found[0]) if found else {"failed": run.stderr[-2000:]}
        print(master, results[master], file=sys.stderr, flush=True)
    print(json.dumps(results, indent=2))
    if options.out is not None:
        record.write(results, options.out)


if __name__ == "__main__":
    main()
