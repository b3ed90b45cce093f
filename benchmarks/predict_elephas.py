"""Rows a second of elephas on a Parquet file; `predict.py --elephas` runs it by elephas's own Python.

    PYTHON predict_elephas.py model.keras rows.parquet COLUMN ROWS REPEATS

elephas asks for other versions of Spark, NumPy and TensorFlow than Distributed Keras, hence an environment of
its own. As in `predict.py`: one task slot of one core, Parquet read each time, the first turn not counted.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["PYSPARK_PYTHON"] = sys.executable
for setting in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ[setting] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"


def main() -> None:
    """Measure and print JSON."""
    saved, path, column, rows, repeats = sys.argv[1:]
    import keras
    import numpy as np
    from elephas.spark_model import SparkModel
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    model = keras.saving.load_model(saved, compile=False)
    model.compile("sgd", "mse")
    shape = model.input_shape[1:]
    frame = spark.read.parquet(path).select(column).limit(int(rows))
    predictor = SparkModel(model, mode="synchronous", num_workers=1)

    def array(row: Any) -> Any:
        return np.asarray(row[0], "float32").reshape(shape)

    seconds = []
    for turn in range(int(repeats) + 1):
        began = time.perf_counter()
        predicted = predictor.predict(frame.rdd.map(array))
        if turn:
            seconds.append(time.perf_counter() - began)
        if len(predicted) != int(rows):
            raise ValueError(f"Expected {rows} predictions. Received: {len(predicted)}")
    spark.stop()
    print(json.dumps({"rows_per_second": int(rows) / statistics.median(seconds)}))


if __name__ == "__main__":
    main()
