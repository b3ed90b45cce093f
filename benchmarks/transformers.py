"""Each DataFrame transformer against a Python function of each row, as dist-keras had them. JSON out.

python benchmarks/transformers.py [--rows 5000] [--repeats 3]

Both add the same column to the same cached rows and throw the result away; they take turns, and the median is
given, without the first turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyspark
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector
from pyspark.sql import DataFrame, Row
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    spark = local_session(2)
    pixels = F.transform(
        F.sequence(F.lit(0), F.lit(PIXELS - 1)), lambda i: ((F.col("id") + i) % 256).cast("double")
    )
    scores = F.transform(
        F.sequence(F.lit(0), F.lit(CLASSES - 1)), lambda i: ((F.col("id") * 7 + i) % 11) / 20
    )
    frame = spark.range(0, args.rows, 1, 2).select(
        array_to_vector(pixels).alias("x"),
        array_to_vector(scores).alias("scores"),
        (F.col("id") % CLASSES).cast("int").alias("label"),
        (F.col("id") % CLASSES).cast("double").alias("number"),
    )
    frame = frame.cache()
    frame.count()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "spark": pyspark.__version__,
        "rows": args.rows,
    }
    for name, (transformer, column, function) in CASES.items():
        one = frame.select(column)
        ways: dict[str, Callable[[], None]] = {
            "native": lambda: run(transformer.transform(one)),  # noqa: B023 (called in this turn)
            "row_loop": lambda: run(row_loop(one, function)),  # noqa: B023
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(args.repeats + 1):
            for way, transform in ways.items():
                began = time.perf_counter()
                transform()
                if turn:
                    seconds[way].append(time.perf_counter() - began)
        medians = {way: statistics.median(taken) for way, taken in seconds.items()}
        report[name] = {way: round(args.rows / median) for way, median in medians.items()}
        report[name]["times"] = round(medians["row_loop"] / medians["native"], 1)
    spark.stop()
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
