"""How fast do rows reach the training, and in how much memory?

Rows of 784 float32 and a label, one partition cached by Spark, one worker. Inside the Python worker of one
task, in turn, each from its first row to its last:

- raw: the Arrow record batches of `mapInArrow`, which nobody looks at;
- feed: minibatches, epoch 0 (streamed and spooled), and epochs 1 and 2 (from the spool), in order and
  shuffled; of each the maximum is taken, so that every number is read;
- parquet: the same rows from a Parquet file by pyarrow, which nobody looks at;
- pickled: the rows of the RDD, as Python objects, which nobody looks at: a tenth of them.

Ratios are of neighbors in one round, medians over the rounds: of the time, and of the processor time of JVM
and Python worker together, which is what the time would be if nothing ran side by side. The large partition
is made on the fly; its memory is the anonymous memory of the Python worker (`RssAnon`) at its peak, above
what it was before the first row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import recording
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.session import local_session
from distkeras.worker.columns import Column, Columns
from distkeras.worker.feed import Feed

RESULTS = Path(__file__).parent / "results" / "feed.json"
WIDTH, BATCH_SIZE = 784, 32
ROW_BYTES = 4 * WIDTH + 4
COLUMNS = Columns((Column("x", (WIDTH,), "float32"),), (Column("y", (), "int32"),))

Measured = dict[str, float]
Task = Callable[[Iterator[pa.RecordBatch]], Measured]


class PeakMemory:
    """The most anonymous memory of this process, and that at the start, in MB, looked at every 10 ms."""

    def __init__(self) -> None:
        self.peak = self.start = _anonymous()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, _anonymous())


def _anonymous() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1000


class Clock:
    """Seconds and processor seconds of a `with` block."""

    def __enter__(self) -> Clock:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._start, time.process_time() - self._cpu_start


def raw(batches: Iterator[pa.RecordBatch]) -> Measured:
    """Seconds of the record batches alone."""
    with Clock() as clock:
        for _ in batches:
            pass
    return {"seconds": clock.seconds, "cpu": clock.cpu}


def feed(
    batches: Iterator[pa.RecordBatch], num_rows: int, shuffle: bool, columns: Columns = COLUMNS
) -> Measured:
    """Seconds of three epochs of minibatches, and the memory that they take."""
    found: Measured = {}
    options: dict[str, Any] = {"batch_size": BATCH_SIZE, "partition": 0, "num_rows": num_rows}
    with PeakMemory() as memory, Feed(batches, columns, shuffle=shuffle, **options) as minibatches:
        for epoch in range(3):
            with Clock() as clock:
                for minibatch in minibatches.epoch(epoch):
                    minibatch.x.max()  # type: ignore[union-attr]  # an array
            found |= {f"epoch {epoch}": clock.seconds, f"epoch {epoch} cpu": clock.cpu}
    return found | {"MB": memory.peak, "MB before": memory.start}


def in_a_task(frame: DataFrame, task: Task) -> Measured:
    """Run `task` on the one partition of `frame`, in Spark's Python worker."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"measured": [json.dumps(task(batches))]})

    before = _jvm_seconds()
    (row,) = frame.mapInArrow(run, "measured string").collect()
    measured: Measured = json.loads(row.measured)
    return measured | {"jvm": _jvm_seconds() - before}


def _jvm_seconds() -> float:
    times = [child.cpu_times() for child in psutil.Process().children() if child.name() == "java"]
    return sum(time.user + time.system for time in times)


def pickled(frame: DataFrame) -> float:
    """Seconds of the RDD's rows, in Spark's Python worker."""

    def run(rows: Iterator[Any]) -> Iterator[float]:
        with Clock() as clock:
            for _ in rows:
                pass
        yield clock.seconds

    (seconds,) = frame.rdd.mapPartitions(run).collect()
    return float(seconds)


def parquet(path: str) -> float:
    """Seconds of the record batches of a Parquet file."""
    with Clock() as clock:
        for _ in pq.ParquetFile(path).iter_batches():
            pass
    return clock.seconds


def rows_of(spark: SparkSession, num_rows: int) -> DataFrame:
    """One partition of rows made on the fly."""
    number = F.pmod(F.col("id"), F.lit(256)).cast("float") / 256
    return spark.range(0, num_rows, 1, 1).select(
        F.array_repeat(number.cast("float"), WIDTH).alias("x"), F.col("id").cast("int").alias("y")
    )


def speed(spark: SparkSession, num_rows: int, repeats: int) -> dict[str, Any]:
    """Rows a second of every way and their ratios, medians over rounds."""
    frame = rows_of(spark, num_rows).cache()
    frame.count()
    tenth = frame.limit(num_rows // 10).coalesce(1).cache()
    tenth.count()
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.parquet"
        pq.write_table(frame.toArrow(), path, compression="none", use_dictionary=False)
        for _ in range(repeats + 1):
            found = {"Parquet by pyarrow": parquet(path), "pickled RDD rows": 10 * pickled(tenth)}
            for name, shuffle in (("in order", False), ("shuffled", True)):
                before = in_a_task(frame, raw)
                fed = in_a_task(frame, partial(feed, num_rows=num_rows, shuffle=shuffle))
                after = in_a_task(frame, raw)
                stream = (before["seconds"] + after["seconds"]) / 2
                found["raw Arrow stream"] = stream
                stream_cpu = sum(one["cpu"] + one["jvm"] for one in (before, after)) / 2
                # The later epochs leave the JVM alone.
                first_cpu = fed["epoch 0 cpu"] + fed["jvm"]
                later = (fed["epoch 1"] + fed["epoch 2"]) / 2
                found |= {f"{name}, first epoch": fed["epoch 0"], f"{name}, later epochs": later}
                found[f"ratio: {name}, first epoch to raw stream"] = stream / fed["epoch 0"]
                found[f"ratio: {name}, first epoch to raw stream, processor"] = stream_cpu / first_cpu
                found[f"ratio: {name}, later epochs to first"] = fed["epoch 0"] / later
            rounds.append(found)
    frame.unpersist()
    middle = {
        name: statistics.median(found[name] for found in rounds[1:]) for name in rounds[0]
    }  # [0] warms up
    return {
        name: value
        if name.startswith("ratio")
        else {"rows/s": num_rows / value, "MB/s": num_rows * ROW_BYTES / value / 1e6}
        for name, value in middle.items()
    }


def memory(spark: SparkSession, gigabytes: float) -> dict[str, Any]:
    """Peak anonymous memory of a worker with a partition of this size: bytes in, float32 out."""
    size = 4 * WIDTH
    num_rows = int(gigabytes * 1e9 / (size + 4))
    image = F.lit((bytes(range(256)) * 13)[:size])
    frame = spark.range(0, num_rows, 1, 1).select(image.alias("x"), F.col("id").cast("int").alias("y"))
    columns = Columns((Column("x", (size,), "float32"),), COLUMNS.labels)
    found: dict[str, Any] = {"rows": num_rows}
    fresh = None
    for shuffle in (False, True):
        measured = in_a_task(frame, partial(feed, num_rows=num_rows, shuffle=shuffle, columns=columns))
        fresh = fresh or measured["MB before"]  # Later the process has memory of the first run to spare.
        found["shuffled" if shuffle else "in order"] = measured | {"MB above": measured["MB"] - fresh}
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000, help="of the cached partition; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--gigabytes", type=float, default=4.0, help="of the large partition; 0 leaves it out"
    )
    arguments = parser.parse_args()
    run = recording.begin(__file__)
    spark = local_session(1, spark_driver_memory="4g")
    results: dict[str, Any] = {}
    if arguments.gigabytes:  # First, in a fresh process.
        results["memory"] = memory(spark, arguments.gigabytes)
    if arguments.rows:
        results["rows"], results["speed"] = arguments.rows, speed(spark, arguments.rows, arguments.repeats)
    print(json.dumps(results, indent=1))
    run.write(results)
    spark.stop()


if __name__ == "__main__":
    main()
