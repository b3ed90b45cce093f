"""Predicts for every message of a Kafka topic as it arrives, and writes the predictions to another topic.

spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.1.0 examples/streaming_kafka.py \
    --model model.keras --brokers broker:9092 --source events --target scores --checkpoint hdfs:///scores

The tests of this project do NOT RUN this example: it needs a Kafka broker, and Spark's connector for Kafka.
They run examples/streaming_files.py, the same with files instead of messages, and `ModelPredictor` on streams
with the file source and the rate source. A message is JSON: `{"id": 7, "features": [0.5]}`.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse

import keras
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.predictors import ModelPredictor

MESSAGE = "id LONG, features ARRAY<FLOAT>"


def parse(messages: DataFrame) -> DataFrame:
    """Parse the JSON. Skip messages that are not JSON or have no features: the model takes no nulls."""
    read = messages.select(F.from_json(F.col("value").cast("string"), MESSAGE).alias("message"))
    return read.select("message.*").na.drop()


def answer(model: keras.Model, messages: DataFrame) -> DataFrame:
    """Return one message per row: the id as its key, the prediction as JSON."""
    predicted = ModelPredictor(model).predict(parse(messages))
    return predicted.select(
        F.col("id").cast("string").alias("key"), F.to_json(F.struct("id", "prediction")).alias("value")
    )


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("model", "brokers", "source", "target", "checkpoint"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    spark = SparkSession.builder.appName("answers").getOrCreate()
    kafka = spark.readStream.format("kafka").option("kafka.bootstrap.servers", args.brokers)
    messages = kafka.option("subscribe", args.source).load()
    answers = answer(keras.saving.load_model(args.model), messages).writeStream.format("kafka")
    query = answers.option("kafka.bootstrap.servers", args.brokers).option("topic", args.target)
    query.option("checkpointLocation", args.checkpoint).start().awaitTermination()


if __name__ == "__main__":
    main()
