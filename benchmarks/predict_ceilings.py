"""What bounds prediction, for `predict.py`: arithmetic, the bare compiled model, rows through Arrow alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.worker.predict import Predictor
from distkeras.worker.prediction import Prediction

Floats = npt.NDArray[np.float32]
ARROW_ROWS = 4000
"""Rows that Spark sends to Python at once when it reads Parquet."""


def matmul_gigaflops() -> float:
    """Return how fast Keras's backend multiplies large matrices: about all that the cores can do."""
    import keras

    matrix, seconds = keras.ops.ones((2048, 2048)), []
    for _ in range(6):
        began = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix))
        seconds.append(time.perf_counter() - began)
    return 2 * 2048**3 / min(seconds) / 1e9


def bare_model(model: Any, x: Floats, batch_size: int) -> tuple[Callable[[], object], float]:
    """Return what computes the outputs to `x` by the compiled model alone, on JAX, and its flops a row."""
    import jax

    # Copies: Keras gives its own to XLA, and takes them back.
    weights = [[jax.numpy.array(v.value) for v in model.trainable_variables]]
    weights.append([jax.numpy.array(v.value) for v in model.non_trainable_variables])
    forward = jax.jit(lambda rows: model.stateless_call(*weights, rows, training=False)[0])
    flops = forward.lower(x[:batch_size]).compile().cost_analysis()["flops"] / batch_size

    def predict() -> object:
        return [np.asarray(forward(x[first : first + batch_size])) for first in range(0, len(x), batch_size)]

    return predict, flops


def through_arrow(frame: DataFrame, column: Column, width: int) -> DataFrame:
    """Add `width` zeros to each row by a Python worker that looks at nothing."""

    def zeros(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for batch in batches:
            flat = pa.array(np.zeros(len(batch) * width, np.float32))
            offsets = pa.array(np.arange(len(batch) + 1, dtype=np.int32) * width)
            yield pa.ListArray.from_arrays(offsets, flat)

    udf = F.arrow_udf(zeros, T.ArrayType(T.FloatType()))
    return frame.select("*", udf(F.struct(column)).alias("prediction"))


def cpu_over_keras(model: Any, prediction: Prediction, column: pa.Array, x: Floats, repeats: int) -> float:
    """Return Keras's processor time over a Python worker's, for the same rows in this process."""
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


def enough(x: Floats, batch_size: int) -> Floats:
    """Return the first rows of `x`, some 10 MB of whole minibatches."""
    return x[: max(1, 10_000_000 // x[:batch_size].nbytes) * batch_size]
