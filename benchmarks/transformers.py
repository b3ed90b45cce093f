"""Each DataFrame transformer against a Python function of each row, as dist-keras had them. JSON out.

python benchmarks/transformers.py [--rows 30000] [--loop-rows 3000] [--repeats 3] [--json FILE]

Both ways add the same column to cached rows and throw the result away, on two cores; the function of each row
on fewer rows, since it is slow. Where the column is no image of 784 numbers, both get `NARROW` times the
rows: else what Spark takes to start a job would be most of what is measured. They take turns, and the median
is given, without the first turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recording
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.session import local_session
from distkeras.transformers import (
    BinaryLabelTransformer,
    DenseTransformer,
    LabelIndexTransformer,
    MinMaxTransformer,
    OneHotTransformer,
    ReshapeTransformer,
    StandardTransformer,
)

PIXELS = 784
CLASSES = 10
NARROW = 20

RowFunction = Callable[[Row], Any]

CASES: dict[str, tuple[Any, str, RowFunction]] = {
    "MinMaxTransformer": (
        MinMaxTransformer(0, 255, 0, 1, "x", "out"),
        "x",
        lambda row: DenseVector(row["x"].toArray() / 255.0),
    ),
    "StandardTransformer": (
        StandardTransformer(["number"]),
        "number",
        lambda row: (row["number"] - 4.5) / 2.87,
    ),
    "DenseTransformer": (
        DenseTransformer("x", "out"),
        "x",
        lambda row: DenseVector(row["x"].toArray()),
    ),
    "ReshapeTransformer": (
        ReshapeTransformer("x", "out", (28, 28, 1)),
        "x",
        lambda row: row["x"].toArray().reshape(28, 28, 1).tolist(),
    ),
    "OneHotTransformer": (
        OneHotTransformer(CLASSES, "label", "out"),
        "label",
        lambda row: np.eye(CLASSES)[int(row["label"])].tolist(),
    ),
    "BinaryLabelTransformer": (
        BinaryLabelTransformer("label", "out", 3),
        "label",
        lambda row: DenseVector([1.0, 0.0] if row["label"] == 3 else [0.0, 1.0]),
    ),
    "LabelIndexTransformer": (
        LabelIndexTransformer(CLASSES, input_col="scores", output_col="out"),
        "scores",
        lambda row: float(np.argmax(row["scores"].toArray())),
    ),
}
"""Transformer, its input column, and what gives the same of one row."""


def run(frame: DataFrame) -> None:
    """Compute every row and throw it away."""
    frame.write.format("noop").mode("overwrite").save()


def row_loop(frame: DataFrame, function: RowFunction) -> DataFrame:
    """Add the column `out` row by row."""
    return frame.rdd.map(lambda row: Row(**row.asDict(), out=function(row))).toDF()


def make_frame(spark: SparkSession, rows: int, column: str) -> DataFrame:
    """Return cached rows of one column: `x`, 784 pixels; `scores`, 10 numbers; a `label`; a `number`."""
    row = F.col("id")
    pixels = F.transform(_range(PIXELS), lambda i: ((row + i) % 256).cast("double"))
    scores = F.transform(_range(CLASSES), lambda i: ((row * 7 + i) % 11) / 20)
    frame = spark.range(0, rows, 1, 2).select(
        array_to_vector(pixels).alias("x"),
        array_to_vector(scores).alias("scores"),
        (row % CLASSES).cast("int").alias("label"),
        (row % CLASSES).cast("double").alias("number"),
    )
    frame = frame.select(column).cache()
    frame.count()
    return frame


def _range(size: int) -> Column:
    return F.sequence(F.lit(0), F.lit(size - 1))


def measure(spark: SparkSession, name: str, rows: int, loop_rows: int, repeats: int) -> dict[str, float]:
    """Return rows a second both ways, and how many times the first is the second."""
    transformer, column, function = CASES[name]
    times = 1 if column == "x" else NARROW
    rows, loop_rows = times * rows, times * loop_rows
    native, loop = make_frame(spark, rows, column), make_frame(spark, loop_rows, column)
    ways: dict[str, tuple[int, Callable[[], None]]] = {
        "native": (rows, lambda: run(transformer.transform(native))),
        "row_loop": (loop_rows, lambda: run(row_loop(loop, function))),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, (_, transform) in ways.items():
            began = time.perf_counter()
            transform()
            if turn:
                seconds[way].append(time.perf_counter() - began)
    for frame in (native, loop):
        frame.unpersist()
    rates = {way: count / statistics.median(seconds[way]) for way, (count, _) in ways.items()}
    return {way: round(rate) for way, rate in rates.items()} | {
        "times": round(rates["native"] / rates["row_loop"], 1)
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--loop-rows", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the result there too")
    args = parser.parse_args()
    run = recording.begin(__file__)
    spark = local_session(2)
    report: dict[str, Any] = {
        "rows": args.rows,
        "loop_rows": args.loop_rows,
        "rows_per_second": {
            name: measure(spark, name, args.rows, args.loop_rows, args.repeats) for name in CASES
        },
    }
    spark.stop()
    print(json.dumps(report, indent=2))
    if args.json is not None:
        run.write(report, args.json)


if __name__ == "__main__":
    main()
