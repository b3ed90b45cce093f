"""Predicts for the rows of every file that arrives in a folder, and adds them to a table of Parquet files.

python examples/streaming_files.py --model model.keras --source incoming --target scores [--once]

A file of the source has a JSON object a line: `{"id": 7, "features": [0.5]}`. Write it elsewhere first, and
move it into the folder when it is complete. A batch that Spark repeats after a failure counts once: each has
a folder of its own, which it overwrites.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse

import keras
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming import StreamingQuery

from distkeras.cluster.session import local_session
from distkeras.predictors import ModelPredictor

SCHEMA = "id LONG, features ARRAY<FLOAT>"


def start(
    spark: SparkSession, model: keras.Model, source: str, target: str, once: bool = False
) -> StreamingQuery:
    """Start the stream; with `once`, it ends with the files that are there."""
    # Lines that are not JSON, or have no features, are left out: the model takes no nulls.
    rows = spark.readStream.schema(SCHEMA).json(source).na.drop()
    predicted = ModelPredictor(model).predict(rows)

    def write(batch: DataFrame, number: int) -> None:
        batch.select("id", "prediction").write.mode("overwrite").parquet(f"{target}/batch={number}")

    stream = predicted.writeStream.foreachBatch(write).option("checkpointLocation", f"{target}/_checkpoint")
    return (stream.trigger(availableNow=True) if once else stream).start()


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("model", "source", "target"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--once", action="store_true", help="end with the files that are there")
    args = parser.parse_args()
    spark, model = local_session(), keras.saving.load_model(args.model)
    start(spark, model, args.source, args.target, args.once).awaitTermination()


if __name__ == "__main__":
    main()
