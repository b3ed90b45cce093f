"""The trainings that `train.py` compares, each run in a process of its own: `contenders.py NAME OPTIONS`.

Reads a number of epochs from a line of its input, trains so many, prints a line of JSON, and reads the next.
The first training of the process is cold, the others are warm.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).parents[1] / "examples" / "data"
RATE = 0.05
BATCH = 32
WIDTHS = (784, 500, 500, 10)

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Trained = tuple[Callable[[Images], npt.NDArray[Any]], float | None]
"""What predicts with the trained model, and seconds of pure training where they are known."""


def mnist(part: str, rows: int | None = None) -> tuple[Images, Labels]:
    """Return images of 0 to 255, shape (rows, 784), and labels."""
    import pyarrow.parquet as pq

    table = pq.read_table(DATA / f"{part}.parquet").slice(0, rows)
    images = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8).reshape(-1, WIDTHS[0])
    return images.astype(np.float32), table["label"].to_numpy().astype(np.int64)


def keras_model(seed: int | None = 7) -> Any:
    """Return the MLP, compiled."""
    import keras

    if seed is not None:
        keras.utils.set_random_seed(seed)
    hidden = [keras.layers.Dense(width, activation="relu") for width in WIDTHS[1:-1]]
    last = keras.layers.Dense(WIDTHS[-1], activation="softmax")
    scale = keras.layers.Rescaling(1 / 255)
    model = keras.Sequential([keras.Input((WIDTHS[0],)), scale, *hidden, last])
    model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy")
    return model


def distkeras(options: argparse.Namespace) -> Callable[[int], Trained]:
    """Two workers on Spark, the rows cached in its memory."""
    from distkeras.cluster.session import local_session

    # The workers import Keras while this process does.
    spark = local_session(2, backend=os.environ["KERAS_BACKEND"])
    from distkeras import DOWNPOUR

    frame = spark.read.parquet(str(DATA / "train.parquet"))
    frame = (frame if options.rows is None else frame.limit(options.rows)).repartition(2).cache()
    frame.count()
    given = keras_model()  # Once, as in `fit` and `bound`.
    first = given.get_weights()

    def train(epochs: int) -> Trained:
        given.set_weights(first)
        trainer = DOWNPOUR(
            given,
            features_col="image",
            num_epoch=epochs,
            batch_size=BATCH,
            communication_window=32,
            seed=0,
            verbose=0,
        )
        model = trainer.train(frame)
        windows = sorted(window.timestamp for window in trainer.get_history())
        # The first window began before its commit.
        training = (windows[-1] - windows[0]) * len(windows) / max(1, len(windows) - 2)
        return lambda images: model.predict(images, batch_size=1000, verbose=0), training

    return train


def fit(options: argparse.Namespace) -> Callable[[int], Trained]:
    """`keras.Model.fit` on all cores; the model is compiled anew only in the first training."""
    x, y = mnist("train", options.rows)
    model = keras_model()
    first = model.get_weights()

    def train(epochs: int) -> Trained:
        model.set_weights(first)
        model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
        return lambda images: model.predict(images, batch_size=1000, verbose=0), None

    return train


def bound(options: argparse.Namespace) -> Callable[[int], Trained]:
    """What two cores can do: on each a process trains half of the rows from memory, by the step of a worker.

    There is no exchange, no feed and no Spark. The model is the mean of both.
    """
    context = multiprocessing.get_context("spawn")
    calls = []
    for part in range(2):
        call, answers = context.Pipe()
        context.Process(target=bound_process, args=(answers, part, options.rows), daemon=True).start()
        calls.append(call)
    model = keras_model()
    for call in calls:
        call.recv()  # It has compiled.

    def train(epochs: int) -> Trained:
        began = time.perf_counter()
        for call in calls:
            call.send(epochs)
        halves = [call.recv() for call in calls]
        training = time.perf_counter() - began
        model.set_weights([sum(weights) / 2 for weights in zip(*halves, strict=True)])
        return lambda images: model.predict(images, batch_size=1000, verbose=0), training

    return train


def bound_process(calls: Any, part: int, rows: int | None) -> None:
    """One process of `bound`, on a core of its own: trains as many epochs as asked, each time anew."""
    from distkeras.worker.environment import prepare_process

    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[part]})
    prepare_process(os.environ["KERAS_BACKEND"], 1)
    from distkeras.model.spec import deserialize_model, serialize_model
    from distkeras.model.weights import initial_vector
    from distkeras.worker.backends import make_replica

    x, y = (array[part::2].copy() for array in mnist("train", rows))
    replica = make_replica(deserialize_model(serialize_model(keras_model())))
    first, draw = initial_vector(replica.model), np.random.default_rng(part)

    def train(epochs: int) -> list[npt.NDArray[Any]]:
        replica.write(first)
        for _ in range(epochs):
            order = draw.permutation(len(x))
            for start in range(0, len(x), BATCH):
                some = order[start : start + BATCH]
                replica.train(x[some], y[some])
        replica.metrics()
        replica.sync()
        weights: list[npt.NDArray[Any]] = replica.model.get_weights()
        return weights

    calls.send(train(1))
    with contextlib.suppress(EOFError):  # The contender has ended.
        while True:
            calls.send(train(calls.recv()))


def ddp(options: argparse.Namespace) -> Callable[[int], Trained]:
    """PySpark's TorchDistributor: the same MLP in plain PyTorch, DDP over gloo, two processes of a thread."""
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import SparkSession

    SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    distributor = TorchDistributor(num_processes=2, local_mode=True, use_gpu=False)

    def train(epochs: int) -> Trained:
        weights, first, last = distributor.run(ddp_process, epochs, options.rows)

        def predict(images: Images) -> npt.NDArray[Any]:
            images = images / np.float32(255)
            for index, (weight, bias) in enumerate(weights):
                images = images @ weight.T + bias
                images = np.maximum(images, 0) if index < len(weights) - 1 else images
            return images

        return predict, last - first

    return train


def ddp_process(epochs: int, rows: int | None) -> tuple[list[Any], float, float]:
    """One process of DDP; returns weights, and when it began and ended to train."""
    import torch
    import torch.distributed

    torch.set_num_threads(1)
    torch.manual_seed(7)
    torch.distributed.init_process_group("gloo")
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    x, y = (torch.from_numpy(part[rank::size].copy()) for part in mnist("train", rows))
    x /= 255
    layers: list[torch.nn.Module] = []
    for inner, outer in itertools.pairwise(WIDTHS):
        layers += [torch.nn.Linear(inner, outer), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    model = torch.nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    began = time.time()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            batch = order[start : start + BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    ended = time.time()
    torch.distributed.destroy_process_group()
    linear = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    weights = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in linear]
    return weights, began, ended


def elephas(options: argparse.Namespace) -> Callable[[int], Trained]:
    """elephas in one of its modes; two workers, the rows cached as an RDD."""
    from elephas.spark_model import AsynchronousSparkModel, SparkModel
    from elephas.utils.rdd_utils import to_simple_rdd
    from pyspark.sql import SparkSession

    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    rdd = to_simple_rdd(spark.sparkContext, *mnist("train", options.rows)).repartition(2).cache()
    rdd.count()
    mode, _, server = options.mode.partition("-")
    ports = iter(range(4000, 4100))

    def train(epochs: int) -> Trained:
        model = keras_model()
        if mode == "synchronous":
            wrapped = SparkModel(model, batch_size=BATCH)
        else:
            wrapped = AsynchronousSparkModel(
                model, mode=mode, frequency="epoch", parameter_server_mode=server, port=next(ports)
            )
        wrapped.fit(rdd, epochs=epochs, batch_size=BATCH, verbose=0, validation_split=0.0)
        return lambda images: wrapped.master_network.predict(images, batch_size=1000, verbose=0), None

    return train


CONTENDERS = {"distkeras": distkeras, "fit": fit, "bound": bound, "ddp": ddp, "elephas": elephas}


def main() -> None:
    """Train as often as is asked, and print."""
    began = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CONTENDERS)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--mode", help="of elephas")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    train = CONTENDERS[options.name](options)
    images, labels = mnist("test")
    ready = time.perf_counter() - began
    for turn, epochs in enumerate(map(int, sys.stdin)):
        began = time.perf_counter()
        predict, training = train(epochs)
        seconds = time.perf_counter() - began
        accuracy = float(np.mean(predict(images).argmax(1) == labels))
        record = {"name": options.name, "turn": turn, "epochs": epochs, "seconds": seconds}
        print(json.dumps(record | {"ready": ready, "training": training, "accuracy": accuracy}), flush=True)


if __name__ == "__main__":
    main()
