"""The sides that `physicist.py` compares, each in a process of its own: `physicist_sides.py NAME OPTIONS`.

Prints a line of JSON when a part of the work ends, with what was measured in it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import physics_events
import pyarrow.parquet as pq

FEATURES = physics_events.FEATURES
WIDTHS = (500, 500, 500)
RATE = 0.001
WINDOW = 5
PRESENT = -998.0
"""Energies, angles and masses are above this; what an event does not have, is below."""
LABEL = "int(label = 's') AS label"
SIGNAL = 1
MANY = 16384
"""Rows that a network predicts at a time."""

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Part = dict[str, Any]


def read(folder: Path) -> tuple[Features, Labels]:
    """Return the measurements, shape (rows, 30), and 1 for a signal, else 0."""
    table = pq.read_table(folder, columns=[*FEATURES, "label"])
    x = np.empty((table.num_rows, len(FEATURES)), np.float32)
    for index, name in enumerate(FEATURES):
        x[:, index] = table[name].to_numpy()
    return x, (table["label"].to_numpy() == "s").astype(np.int32)


def scales(folder: Path) -> tuple[list[float], list[float]]:
    """Return mean and variance of each measurement, by the events of the first file that have it."""
    table = pq.ParquetFile(min(folder.glob("*.parquet"))).read_row_group(0, columns=FEATURES)
    columns = [table[name].to_numpy() for name in FEATURES]
    present = [column[column > PRESENT] for column in columns]
    return [float(each.mean()) for each in present], [float(each.var()) for each in present]


def network(mean: list[float], variance: list[float]) -> Any:
    """Return the MLP of the thesis, compiled. It scales the measurements itself; a missing one becomes 0."""
    import keras

    keras.utils.set_random_seed(7)
    inputs = keras.Input((len(FEATURES),))
    scaled = keras.layers.Normalization(mean=mean, variance=variance)(inputs)
    hidden = keras.ops.where(inputs > PRESENT, scaled, 0.0)
    for width in WIDTHS:
        hidden = keras.layers.Dense(width, activation="relu")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy")
    return model


def f1(labels: Labels, predicted: Labels) -> float:
    """Return the mean F1 score of the two classes, weighted by their shares."""
    score = 0.0
    for kind in (0, 1):
        found, true = predicted == kind, labels == kind
        score += true.mean() * 2 * (found & true).sum() / max(1, found.sum() + true.sum())
    return float(score)


def judged(model: Any, test: Path) -> float:
    """Return the F1 score of a network on the test table, by `keras.Model.predict`."""
    x, y = read(test)
    return f1(y, model.predict(x, batch_size=MANY, verbose=0).argmax(1).astype(np.int32))


def session(options: argparse.Namespace) -> Any:
    """Start Spark with little memory, and so that it reads each file as one partition."""
    from distkeras.cluster.session import local_session

    return local_session(
        options.workers,
        backend=None if options.name == "xgboost" else os.environ["KERAS_BACKEND"],
        spark_driver_memory=options.memory,
        spark_sql_files_maxPartitionBytes="1t",
        spark_sql_files_openCostInBytes="1g",
    )


def distkeras(options: argparse.Namespace) -> Iterator[Part]:
    """Train on the sample, then on the whole table; predict the test table on Spark."""
    began = time.perf_counter()
    spark = session(options)
    from distkeras import DOWNPOUR
    from distkeras.evaluators import F1Evaluator
    from distkeras.predictors import ModelPredictor
    from distkeras.transformers import LabelIndexTransformer

    yield {"part": "start", "took": time.perf_counter() - began}
    for part, folder in (("sample", options.sample), ("whole", options.table)):
        frame = spark.read.parquet(str(folder)).selectExpr(*FEATURES, LABEL)
        began = time.perf_counter()
        trainer = DOWNPOUR(
            network(*scales(options.sample)),
            features_col=FEATURES,
            num_workers=options.workers,
            num_epoch=1,
            batch_size=options.batch,
            communication_window=WINDOW,
            seed=0,
            verbose=0,
        )
        began_at = time.time()
        model = trainer.train(frame)
        took = time.perf_counter() - began
        history = trainer.get_history()
        yield {
            "part": part,
            "rows": sum(window.samples for window in history),
            "took": took,
            "before the first window": min(window.timestamp for window in history) - began_at,
            "rows/s": steady([(window.timestamp, window.samples) for window in history]),
        }
    began = time.perf_counter()
    frame = spark.read.parquet(str(options.test)).selectExpr(*FEATURES, LABEL)
    predicted = ModelPredictor(model, FEATURES, batch_size=MANY).predict(frame).select("label", "prediction")
    predicted = LabelIndexTransformer(2, input_col="prediction").transform(predicted)
    score = F1Evaluator(label_col="label", prediction_col="prediction_index").evaluate(predicted)
    yield {"part": "predict", "took": time.perf_counter() - began, "F1": score}
    spark.stop()


def steady(commits: list[tuple[float, int]]) -> float:
    """Return rows a second from the first commit to the last one."""
    commits = sorted(commits)
    rows = sum(samples for _, samples in commits[1:])
    return rows / max(1e-9, commits[-1][0] - commits[0][0])


def fit(options: argparse.Namespace) -> Iterator[Part]:
    """`keras.Model.fit` on the sample, in memory, on all cores. The step is compiled before."""
    began = time.perf_counter()
    x, y = read(options.sample)
    model = network(*scales(options.sample))
    first = model.get_weights()
    # A full minibatch, and one as the last of the epoch: each shape is compiled.
    for rows in {options.batch, len(x) % options.batch or options.batch}:
        model.fit(x[:rows], y[:rows], batch_size=options.batch, verbose=0)
    model.set_weights(first)
    yield {"part": "start", "took": time.perf_counter() - began}
    began = time.perf_counter()
    model.fit(x, y, batch_size=options.batch, epochs=1, verbose=0)
    took = time.perf_counter() - began
    yield {"part": "sample", "rows": len(x), "took": took, "rows/s": len(x) / took}
    yield {"part": "predict", "F1": judged(model, options.test)}


def bound(options: argparse.Namespace) -> Iterator[Part]:
    """What the cores can do: on each, a process trains a share of the sample by the step of a worker.

    The rows are in memory. There is no Spark and no exchange.
    """
    context = multiprocessing.get_context("spawn")
    calls = []
    for part in range(options.workers):
        call, answers = context.Pipe()
        context.Process(target=bound_process, args=(answers, part, options), daemon=True).start()
        calls.append(call)
    rows = sum(call.recv() for call in calls)
    began = time.perf_counter()
    for call in calls:
        call.send("train")
    for call in calls:
        call.recv()
    took = time.perf_counter() - began
    yield {"part": "sample", "rows": rows, "took": took, "rows/s": rows / took}


def bound_process(calls: Any, part: int, options: argparse.Namespace) -> None:
    """One process of `bound`."""
    from distkeras.worker.environment import prepare_process

    prepare_process(os.environ["KERAS_BACKEND"], 1)
    from distkeras.model.spec import deserialize_model, serialize_model
    from distkeras.worker.backends import make_replica

    x, y = (array[part :: options.workers].copy() for array in read(options.sample))
    replica = make_replica(deserialize_model(serialize_model(network(*scales(options.sample)))))
    full = len(x) - len(x) % options.batch
    replica.train(x[: options.batch], y[: options.batch])
    replica.sync()
    calls.send(full)
    calls.recv()
    for start in range(0, full, options.batch):
        replica.train(x[start : start + options.batch], y[start : start + options.batch])
    replica.metrics()
    replica.sync()
    calls.send("trained")


def xgboost(options: argparse.Namespace) -> Iterator[Part]:
    """XGBoost on Spark, with the same files and as many workers; it predicts the test table on Spark."""
    began = time.perf_counter()
    spark = session(options)
    from xgboost.spark import SparkXGBClassifier

    yield {"part": "start", "took": time.perf_counter() - began}
    frame = spark.read.parquet(str(options.table)).selectExpr(*FEATURES, LABEL)
    began = time.perf_counter()
    classifier = SparkXGBClassifier(
        features_col=FEATURES,
        label_col="label",
        missing=physics_events.MISSING,
        num_workers=options.workers,
        n_estimators=options.trees,
        tree_method="hist",
        max_depth=6,
    )
    model = classifier.fit(frame)
    took = time.perf_counter() - began
    rows = sum(pq.ParquetFile(file).metadata.num_rows for file in options.table.glob("*.parquet"))
    # Each row is used once for each tree: rows/s of the whole job do not compare with those of a network.
    yield {"part": "whole", "rows": rows, "took": took, "trees": options.trees}
    began = time.perf_counter()
    test = spark.read.parquet(str(options.test)).selectExpr(*FEATURES, LABEL)
    found = model.transform(test).select("label", "prediction").toArrow()
    score = f1(found["label"].to_numpy(), found["prediction"].to_numpy().astype(np.int32))
    yield {"part": "predict", "took": time.perf_counter() - began, "F1": score}
    spark.stop()


def cut(options: argparse.Namespace) -> Iterator[Part]:
    """What needs no network: call all events background, and the best cut on one measurement."""
    x, y = read(options.sample)
    test, labels = read(options.test)
    yield {"part": "background", "F1": f1(labels, np.zeros_like(labels))}
    best = (0.0, 0, 0.0, 0)
    for index in range(x.shape[1]):
        for at in np.quantile(x[:, index], np.linspace(0.02, 0.98, 49)):
            for sign in (0, 1):
                score = f1(y, ((x[:, index] > at) == bool(sign)).astype(np.int32))
                best = max(best, (score, index, float(at), sign))
    _, index, at, sign = best
    found = ((test[:, index] > at) == bool(sign)).astype(np.int32)
    yield {"part": "cut", "measurement": FEATURES[index], "F1": f1(labels, found)}


SIDES = {"distkeras": distkeras, "fit": fit, "bound": bound, "xgboost": xgboost, "cut": cut}


def main() -> None:
    """Run a side, and print what it yields."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=SIDES)
    for folder in ("table", "sample", "test"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--trees", type=int, required=True)
    parser.add_argument("--memory", required=True)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for part in SIDES[options.name](options):
        print(json.dumps(part), flush=True)


if __name__ == "__main__":
    main()
