"""From `python script.py` to a trained model, beside `keras.fit`'s own script and Spark alone. JSON out.

python benchmarks/cold.py [--backend jax] [--epochs 5] [--rows 60000] [--turns 3] [--sides fit spark ...]
                          [--unseeded] [--out FILE]

MNIST, MLP 784-500-500-10, SGD 0.05, batch 32. Each side is a new process, by turns:

    fit        `keras.Model.fit` on all cores
    spark      no training: a local session counts the rows by a Python function, and ends. The floor of Spark
    first      two workers on Spark; the folder of caches is empty, as on a new machine
    again      the same, with the compiled code that an earlier process has kept
    archived   the same, also with Spark's classes from `python -m distkeras.class_archive`

With --unseeded no script calls `keras.utils.set_random_seed`, which imports TensorFlow on every backend.

Seconds of the clock until the model is there, and of the processor, of all processes together, the JVM's
included. Medians over the turns, and the ratio to `fit` of the same turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recording

SIDES = ("fit", "spark", "first", "again", "archived")
LIMIT = 900.0
"""Seconds that a process may take."""
TICKS = os.sysconf("SC_CLK_TCK")


def train_by_fit(options: argparse.Namespace) -> None:
    """Train as a script without Spark does."""
    import contenders

    x, y = contenders.mnist("train", options.rows)
    contenders.keras_model(options.seed).fit(
        x, y, batch_size=contenders.BATCH, epochs=options.epochs, verbose=0
    )


def train_on_spark(options: argparse.Namespace) -> None:
    """Train as a script of this project does."""
    from distkeras.cluster.session import local_session

    spark = local_session(2, backend=options.backend)
    import contenders

    from distkeras import DOWNPOUR

    frame = spark.read.parquet(str(contenders.DATA / "train.parquet"))
    frame = (frame if options.rows is None else frame.limit(options.rows)).repartition(2).cache()
    trainer = DOWNPOUR(
        contenders.keras_model(options.seed),
        features_col="image",
        num_epoch=options.epochs,
        batch_size=contenders.BATCH,
        communication_window=32,
        seed=0,
        verbose=0,
    )
    trainer.train(frame)


def run_spark_alone(options: argparse.Namespace) -> None:
    """Let Python workers of a local session count the rows."""
    import contenders
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = builder.config("spark.driver.host", "127.0.0.1").getOrCreate()
    frame = spark.read.parquet(str(contenders.DATA / "train.parquet"))
    frame = (frame if options.rows is None else frame.limit(options.rows)).repartition(2).cache()

    def count(batches: Any) -> Any:
        import pyarrow as pa

        rows = sum(batch.num_rows for batch in batches)
        yield pa.RecordBatch.from_pydict({"rows": [rows]})

    counted = sum(row.rows for row in frame.mapInArrow(count, "rows long").collect())
    if options.rows is not None and counted != options.rows:
        raise RuntimeError(f"Expected {options.rows} rows. Received: {counted}")


def processor_seconds() -> float:
    """Return the seconds of the processor of this process and all below it, ended ones included."""
    found: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # It has just ended.
            continue
        # Its parent; then time as user and as system, its own and of its children that have ended.
        found[int(stat.parent.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS
    own = {os.getpid()}
    while more := {pid for pid, (parent, _) in found.items() if parent in own} - own:
        own |= more
    return sum(found[pid][1] for pid in own if pid in found)


def run_side(side: str, options: argparse.Namespace) -> None:
    """Run one side in this process, and print the seconds of the processor."""
    run = {"fit": train_by_fit, "spark": run_spark_alone}.get(side, train_on_spark)
    run(options)
    print(json.dumps({"processor": processor_seconds()}), flush=True)


def measure(side: str, options: argparse.Namespace, caches: Path) -> dict[str, float]:
    """Run one side in a new process; return the seconds until it has said that it is done."""
    command = [sys.executable, __file__, "--side", side, "--epochs", str(options.epochs)]
    command += ["--backend", options.backend]
    command += [] if options.rows is None else ["--rows", str(options.rows)]
    command += ["--unseeded"] if options.seed is None else []
    environment = os.environ | {
        "KERAS_BACKEND": options.backend,
        "PYSPARK_PYTHON": sys.executable,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "XDG_CACHE_HOME": str(caches),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=caches
        )
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("{")), None)
            seconds = time.perf_counter() - began
            process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()
        if line is None or process.returncode:
            errors.seek(0)
            raise RuntimeError(f"{side} ended with exit code {process.returncode}:\n{errors.read()[-2000:]}")
    return {"seconds": seconds, **json.loads(line)}


def make_archive(caches: Path) -> None:
    """Make the archive of Spark's classes in this folder of caches."""
    environment = os.environ | {"XDG_CACHE_HOME": str(caches)}
    command = [sys.executable, "-m", "distkeras.class_archive"]
    subprocess.run(command, env=environment, check=True, timeout=LIMIT, stdout=subprocess.DEVNULL)


def summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Return for each side the medians, and the least, median and greatest ratio to `fit`."""
    found: dict[str, Any] = {}
    for side in turns[0]:
        found[side] = {
            name: round(statistics.median(turn[side][name] for turn in turns), 2)
            for name in ("seconds", "processor")
        }
        if "fit" in turns[0]:
            ratios = sorted(turn[side]["seconds"] / turn["fit"]["seconds"] for turn in turns)
            spread = ratios[0], statistics.median(ratios), ratios[-1]
            found[side]["to_fit"] = [round(each, 2) for each in spread]
    return found


def main() -> None:
    """Run all sides by turns, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backend", default="jax", choices=("jax", "tensorflow", "torch"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, help="default: all 60,000")
    parser.add_argument(
        "--unseeded", action="store_const", dest="seed", const=None, default=7, help="do not seed Keras"
    )
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/cold.json")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options)
        return
    record = recording.begin(__file__)
    with tempfile.TemporaryDirectory() as folder:
        kept, archived = Path(folder, "kept"), Path(folder, "archived")
        for side, caches in (("again", kept), ("archived", archived)):
            if side in options.sides:
                caches.mkdir()
                if side == "archived":
                    make_archive(caches)
                measure(side, options, caches)  # It compiles.
        turns: list[dict[str, dict[str, float]]] = []
        for turn in range(options.turns):
            places = {side: Path(folder, f"{side} {turn}") for side in options.sides}
            for place in places.values():
                place.mkdir()
            places |= {
                side: each for side, each in (("again", kept), ("archived", archived)) if side in places
            }
            turns.append({side: measure(side, options, place) for side, place in places.items()})
            print(json.dumps(turns[-1]), file=sys.stderr, flush=True)
            settings = {"backend": options.backend, "epochs": options.epochs, "rows": options.rows}
            settings["seeded"] = options.seed is not None
            record.write({**settings, "medians": summary(turns), "turns": turns}, options.out)
    print(json.dumps(summary(turns), indent=1))


if __name__ == "__main__":
    main()
