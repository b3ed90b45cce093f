"""Rows a second through a model on Spark, against Keras in memory and other ways on Spark. JSON out.

python benchmarks/predict.py [--rows 1000000] [--images 60000] [--repeats 5] [--cores 1] [--json FILE]
    [--elephas PYTHON]

An MLP of 3 x 500 on 30 floats, and a small CNN on MNIST images. `ModelPredictor` reads Parquet and throws its
answers away; `keras` predicts the same rows in the memory of one process; `predict_batch_udf` is Spark's own;
`row_loop` predicts row by row in an RDD, as dist-keras did, on few rows. All on the same number of cores; the
ways take turns, and the median is given, without the first turn, in which models are loaded and compiled.
`cpu_over_keras`: the processor time of `keras.Model.predict` over that of a Python worker for the same rows,
from Arrow batches to Arrow answers: a ratio that a busy machine does not change.
`--elephas` names the Python of an environment that has elephas, which predicts fewer rows after the others:

    python -m venv elephas && elephas/bin/pip install elephas==7.3.0 pyarrow
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import json
import math
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.session import local_session
from distkeras.worker.predict import Prediction, Predictor
from distkeras.worker.task import prepare_process

MNIST = Path(__file__).parents[1] / "examples" / "data" / "train.parquet"
LOOP_ROWS = 200
ELEPHAS_ROWS = 20_000
CPU_ROWS = 80_000
ARROW_ROWS = 10_000
"""Rows that Spark sends to Python at once."""
FLOATS = 30


def mlp() -> Any:
    """The network of dist-keras's physics example."""
    import keras

    layers = [keras.layers.Dense(500, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((FLOATS,)), *layers, keras.layers.Dense(2, activation="softmax")])


def cnn() -> Any:
    """The network of dist-keras's MNIST example."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(225, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def write_floats(path: Path, rows: int) -> npt.NDArray[np.float32]:
    """Write a column `x` of 30 floats a row, and return it."""
    x = np.random.default_rng(0).normal(size=(rows, FLOATS)).astype("float32")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), FLOATS).cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"x": flat}), path, row_group_size=100_000)
    return x


def write_images(path: Path, rows: int) -> npt.NDArray[np.float32]:
    """Write MNIST as bytes (`image`) and as floats (`x`), repeated to `rows`, and return the floats."""
    images = pq.read_table(MNIST, columns=["image"])["image"].to_pylist()
    images = [images[row % len(images)] for row in range(rows)]
    x = np.frombuffer(b"".join(images), np.uint8).reshape(rows, 784).astype("float32")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 784).cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"image": pa.array(images), "x": flat}), path, row_group_size=10_000)
    return x


def run(frame: DataFrame) -> None:
    """Compute every row and throw it away."""
    frame.write.format("noop").mode("overwrite").save()


def spark_udf(path: str, shape: list[int], backend: str, cores: int, batch_size: int) -> Any:
    """Spark's own batch prediction with the model saved at `path`."""

    def make_predict() -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        from distkeras.worker.task import prepare_process

        prepare_process(backend, cores)
        import keras

        model = keras.saving.load_model(path, compile=False)

        def predict(inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.asarray(model.predict_on_batch(inputs))

        return predict

    return predict_batch_udf(
        make_predict,
        return_type=T.ArrayType(T.FloatType()),
        batch_size=batch_size,
        input_tensor_shapes=[shape],
    )


def row_loop(frame: DataFrame, path: str, shape: list[int], backend: str, cores: int) -> DataFrame:
    """Predict row by row in an RDD."""

    def predict(rows: Iterator[Row]) -> Iterator[Row]:
        from distkeras.worker.task import prepare_process

        prepare_process(backend, cores)
        import keras

        model = keras.saving.load_model(path, compile=False)
        for row in rows:
            answer = model.predict(np.asarray([row["x"]], "float32").reshape(1, *shape), verbose=0)
            yield Row(**row.asDict(), prediction=answer[0].tolist())

    return frame.rdd.mapPartitions(predict).toDF("x array<float>, prediction array<double>")


def cpu_over_keras(
    model: Any, prediction: Prediction, column: pa.Array, x: npt.NDArray[np.float32], repeats: int
) -> float:
    """Processor time of Keras over that of a Python worker, for the same rows in this process."""
    predictor = Predictor(prediction)
    ways: dict[str, Callable[[], object]] = {
        "worker": lambda: [
            predictor([column.slice(first, ARROW_ROWS)]) for first in range(0, len(x), ARROW_ROWS)
        ],
        "keras": lambda: model.predict(x, batch_size=prediction.batch_size, verbose=0),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(repeats + 1):
        for way, predict in ways.items():
            began = time.process_time()
            predict()
            if turn:
                seconds[way].append(time.process_time() - began)
    return statistics.median(seconds["keras"]) / statistics.median(seconds["worker"])


def elephas(python: Path, saved: str, path: Path, rows: int, repeats: int) -> float:
    """Rows a second of elephas, by its own Python."""
    script = Path(__file__).with_name("predict_elephas.py")
    arguments = [str(python), str(script), saved, str(path), "x", str(rows), str(repeats)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["rows_per_second"])


def compare(
    spark: SparkSession,
    model: Any,
    x: npt.NDArray[np.float32],
    path: Path,
    column: str,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Measure every way on the rows in `path`."""
    import keras

    from distkeras.predictors import ModelPredictor

    shape, backend = list(model.input_shape[1:]), keras.backend.backend()
    saved = str(path.with_suffix(".keras"))
    model.save(saved)
    frame = spark.read.parquet(str(path))
    predictor = ModelPredictor(model, column)
    batch_size = predictor._batch_size
    udf = spark_udf(saved, shape, backend, args.cores, batch_size)
    whole = x.reshape(-1, *shape)
    ways: dict[str, Callable[[], object]] = {
        "model_predictor": lambda: run(predictor.predict(frame.select(column))),
        "keras": lambda: model.predict(whole, batch_size=batch_size, verbose=0),
        "predict_batch_udf": lambda: run(frame.select("x", udf("x").alias("prediction"))),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(args.repeats + 1):
        for way, predict in ways.items():
            began = time.perf_counter()
            predict()
            if turn:
                seconds[way].append(time.perf_counter() - began)
    began = time.perf_counter()
    run(row_loop(frame.select("x").limit(LOOP_ROWS), saved, shape, backend, args.cores))
    rates = {way: len(x) / statistics.median(taken) for way, taken in seconds.items()}
    rates["row_loop"] = LOOP_ROWS / (time.perf_counter() - began)
    if args.elephas is not None:
        rates["elephas"] = elephas(args.elephas, saved, path, min(len(x), ELEPHAS_ROWS), args.repeats)
    ours = rates["model_predictor"]
    some = whole[: CPU_ROWS // math.prod(shape) * 30]
    rows = pq.read_table(path, columns=[column])[column].combine_chunks()[: len(some)]
    cpu = cpu_over_keras(model, predictor._prediction(spark), rows, some, args.repeats)
    return {
        "rows": len(x),
        "batch_size": batch_size,
        "rows_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "model_predictor_over": {way: round(ours / rate, 2) for way, rate in rates.items() if rate != ours},
        "cpu_over_keras": round(cpu, 2),
        "seconds": {way: [round(second, 3) for second in taken] for way, taken in seconds.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result there too")
    parser.add_argument("--elephas", type=Path, help="the Python of an environment that has elephas")
    args = parser.parse_args()
    backend = os.environ["KERAS_BACKEND"]
    prepare_process(backend, args.cores)
    spark = local_session(1, spark_task_cpus="1")
    report: dict[str, Any] = {"python": platform.python_version(), "backend": backend, "cores": args.cores}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "floats.parquet"
        report["mlp"] = compare(spark, mlp(), write_floats(path, args.rows), path, "x", args)
        path = Path(folder) / "images.parquet"
        report["cnn"] = compare(spark, cnn(), write_images(path, args.images), path, "image", args)
    spark.stop()
    text = json.dumps(report, indent=2)
    print(text)
    if args.json is not None:
        args.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
