"""Rows a second through a model on Spark, against Keras in memory and other ways on Spark. JSON out.

python benchmarks/predict.py [--rows 1000000] [--images 60000] [--repeats 3] [--cores 1] [--only mlp|cnn]
    [--json FILE] [--elephas PYTHON]

An MLP of 3 x 500 on 30 floats, and a small CNN on MNIST images. All ways have `--cores`: on Spark as tasks
of one core, in Keras as threads. They take turns, and the median is given, without the first turn, in which
models are loaded and compiled.

- `model_predictor` reads Parquet and throws its answers away; so does `predict_batch_udf`, Spark's own.
- `keras` predicts the same rows in the memory of one process.
- `row_loop` predicts row by row in an RDD, as dist-keras did, on few rows.
- `arrow`: the same rows and columns through Python workers without a model.
- `bare`: the compiled model alone on rows in memory (JAX).
- `start`: seconds of a job of one row, when everything is loaded and compiled.
- `cpu_over_keras`: Keras's processor time over that of a Python worker, for the same rows.

`--elephas` names the Python of an environment that has elephas, which predicts fewer rows, after the others
and on one core: `scripts/elephas-environment` makes one.
"""

from __future__ import annotations

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import recording
from predict_ceilings import Floats, bare_model, cpu_over_keras, enough, matmul_gigaflops, through_arrow
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.session import local_session
from distkeras.worker.environment import prepare_process

MNIST = Path(__file__).parents[1] / "examples" / "data" / "train.parquet"
LOOP_ROWS = 200
ELEPHAS_ROWS = 100_000
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


def write_floats(path: Path, rows: int) -> Floats:
    """Write a column `x` of 30 floats a row, and return it."""
    x = np.random.default_rng(0).normal(size=(rows, FLOATS)).astype("float32")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), FLOATS).cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"x": flat}), path, row_group_size=100_000)
    return x


def write_images(path: Path, rows: int) -> Floats:
    """Write MNIST as bytes (`image`) and as floats (`x`), repeated to `rows`, and return the floats."""
    images = pq.read_table(MNIST, columns=["image"])["image"].to_pylist()
    images = [images[row % len(images)] for row in range(rows)]
    x = np.frombuffer(b"".join(images), np.uint8).reshape(rows, 784).astype("float32")
    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 784).cast(pa.list_(pa.float32()))
    pq.write_table(pa.table({"image": pa.array(images), "x": flat}), path, row_group_size=10_000)
    return x.reshape(rows, 28, 28, 1)


MODELS: dict[str, tuple[Callable[[], Any], Callable[[Path, int], Floats], str]] = {
    "mlp": (mlp, write_floats, "x"),
    "cnn": (cnn, write_images, "image"),
}
"""Model, what writes its rows, and the column of them that `model_predictor` reads; the others read `x`."""


def run(frame: DataFrame) -> None:
    """Compute every row and throw it away."""
    frame.write.format("noop").mode("overwrite").save()


def spark_udf(path: str, shape: list[int], backend: str, batch_size: int) -> Any:
    """Spark's own batch prediction with the model saved at `path`."""

    def make_predict() -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        from distkeras.worker.environment import prepare_process

        prepare_process(backend, 1)
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


def row_loop(frame: DataFrame, path: str, shape: list[int], backend: str) -> DataFrame:
    """Predict row by row in an RDD."""

    def predict(rows: Iterator[Row]) -> Iterator[Row]:
        from distkeras.worker.environment import prepare_process

        prepare_process(backend, 1)
        import keras

        model = keras.saving.load_model(path, compile=False)
        for row in rows:
            answer = model.predict(np.asarray([row["x"]], "float32").reshape(1, *shape), verbose=0)
            yield Row(**row.asDict(), prediction=answer[0].tolist())

    return frame.rdd.mapPartitions(predict).toDF("x array<float>, prediction array<double>")


@dataclass(frozen=True)
class Case:
    """A model and its rows: `x` in memory, and in the Parquet file `path` as `x` and as `column`."""

    model: Any
    x: Floats
    path: Path
    column: str

    @property
    def saved(self) -> str:
        """Where the model is saved."""
        return str(self.path.with_suffix(".keras"))

    @property
    def one_row(self) -> str:
        """Another Parquet file, with the first row alone."""
        return str(self.path.with_suffix(".one.parquet"))


def make_case(name: str, folder: Path, rows: int) -> Case:
    """Make the model, write it and its rows to `folder`."""
    make, write, column = MODELS[name]
    path = folder / f"{name}.parquet"
    case = Case(make(), write(path, rows), path, column)
    case.model.save(case.saved)
    pq.write_table(pq.ParquetFile(path).read_row_group(0).slice(0, 1), case.one_row)
    return case


def elephas(python: Path, case: Case, rows: int) -> float:
    """Rows a second of elephas, by its own Python."""
    script = Path(__file__).with_name("predict_elephas.py")
    arguments = [str(python), str(script), case.saved, str(case.path), "x", str(rows), "2"]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["rows_per_second"])


def in_turns(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of every turn of every way, the first turn too."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats + 1):
        for way, predict in ways.items():
            began = time.perf_counter()
            predict()
            seconds[way].append(time.perf_counter() - began)
    return seconds


def ways_of(frame: DataFrame, case: Case, predictor: Any) -> dict[str, Callable[[], object]]:
    """Return what takes turns."""
    import keras

    model, batch_size = case.model, predictor._batch_size
    rows = frame.select(case.column)
    shape, width = list(model.input_shape[1:]), model.output_shape[-1]
    udf = spark_udf(case.saved, shape, keras.backend.backend(), batch_size)
    one = frame.sparkSession.read.parquet(case.one_row).select(case.column)
    return {
        "model_predictor": lambda: run(predictor.predict(rows)),
        "keras": lambda: model.predict(case.x, batch_size=batch_size, verbose=0),
        "predict_batch_udf": lambda: run(frame.select("x", udf("x").alias("prediction"))),
        "arrow": lambda: run(through_arrow(rows, F.col(case.column), width)),
        "start": lambda: run(predictor.predict(one)),
    }


def compare(spark: SparkSession, case: Case, args: argparse.Namespace) -> dict[str, Any]:
    """Measure every way."""
    import keras

    from distkeras.predictors import ModelPredictor

    model, backend, rows = case.model, keras.backend.backend(), len(case.x)
    frame = spark.read.parquet(str(case.path))
    predictor = ModelPredictor(model, case.column)
    batch_size = predictor._batch_size
    ways, some = ways_of(frame, case, predictor), enough(case.x, batch_size)
    facts: dict[str, Any] = {"rows": rows, "batch_size": batch_size}
    if backend == "jax":
        ways["bare"], flops = bare_model(model, some, batch_size)
        facts["megaflops_a_row"] = round(flops / 1e6, 2)
    seconds = in_turns(ways, args.repeats)
    medians = {way: statistics.median(taken[1:]) for way, taken in seconds.items()}
    start = medians.pop("start")
    rates = {way: (len(some) if way == "bare" else rows) / median for way, median in medians.items()}
    began = time.perf_counter()
    run(row_loop(frame.select("x").limit(LOOP_ROWS), case.saved, list(model.input_shape[1:]), backend))
    rates["row_loop"] = LOOP_ROWS / (time.perf_counter() - began)
    if args.elephas is not None and args.cores == 1:
        rates["elephas"] = elephas(args.elephas, case, min(rows, ELEPHAS_ROWS))
    ours = rates["model_predictor"]
    column = pq.read_table(case.path, columns=[case.column])[case.column].combine_chunks()[: len(some)]
    cpu = cpu_over_keras(model, predictor._prediction(spark), column, some, args.repeats)
    return facts | {
        "rows_per_second": {way: round(rate, 1) for way, rate in rates.items()},
        "model_predictor_over": {way: round(ours / rate, 2) for way, rate in rates.items() if rate != ours},
        "start": round(start, 3),
        "without_start_over_keras": round(rows / (medians["model_predictor"] - start) / rates["keras"], 2),
        "cpu_over_keras": round(cpu, 2),
        "seconds": {way: [round(second, 3) for second in taken] for way, taken in seconds.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--only", choices=list(MODELS), help="one model")
    parser.add_argument("--json", type=Path, help="write the result there too")
    parser.add_argument("--elephas", type=Path, help="the Python of an environment that has elephas")
    args = parser.parse_args()
    run = recording.begin(__file__)
    backend = os.environ["KERAS_BACKEND"]
    prepare_process(backend, args.cores)
    spark = local_session(args.cores, spark_task_cpus="1")
    report: dict[str, Any] = {"backend": backend}
    rows = {"mlp": args.rows, "cnn": args.images}
    for name in [args.only] if args.only else MODELS:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(spark, make_case(name, Path(folder), rows[name]), args)
        found["matmul_gigaflops"] = round(matmul_gigaflops())
        report[f"{name}, {args.cores} core(s)"] = found
    spark.stop()
    print(json.dumps(report, indent=2))
    if args.json is not None:
        run.write(report, args.json)


if __name__ == "__main__":
    main()
