"""A frozen backbone of 100 MB with a head of 10,000 weights, beside the head alone: the cost of an exchange.

python benchmarks/frozen.py [--repeats 7]

Both models are prepared as a trainer prepares them. Each gets a parameter server of its own, in turns, with
which one client exchanges the vector that a worker would. Writes results/frozen.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import psutil
import recording

from distkeras.algorithms import DOWNPOUR
from distkeras.center import CenterConfig
from distkeras.center.requests import Exchange, Join
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.server import ServerProcess, ServerSetup
from distkeras.model.spec import ModelSpec, first_vector, serialize_model
from distkeras.wire.group import connect

EXCHANGES = 3000
RESULTS = Path(__file__).parent / "results" / "frozen.json"


def head(units: int = 100) -> keras.Sequential:
    """Return a model of 10,000 weights and a bias."""
    return keras.Sequential([keras.Input((units,)), keras.layers.Dense(100)])


def with_backbone() -> keras.Sequential:
    """Return the head on 25 million frozen weights."""
    layers = [keras.layers.Dense(2236, activation="relu", trainable=False) for _ in range(5)]
    narrow = keras.layers.Dense(100, trainable=False)
    return keras.Sequential([keras.Input((2236,)), *layers, narrow, keras.layers.Dense(100)])


def measure(model: keras.Model, spec: ModelSpec, shared: bool) -> dict[str, float]:
    """Return bytes and microseconds of an exchange, and the server's memory."""
    initial = first_vector(model, spec)
    options = ServerOptions(snapshots=None, shared_memory=shared)
    layout = spec.layout
    config = CenterConfig(DOWNPOUR(), num_trainable=layout.num_trainable, layout=layout.fingerprint)
    with (
        ServerProcess(ServerSetup(config, options=options), initial) as server,
        connect((server.address,)) as client,
    ):
        client.call(Join(0, layout=layout.fingerprint))
        message, times = np.full_like(initial, 1e-6), []
        for sequence in range(1, EXCHANGES + 1):
            started = time.perf_counter()
            client.call(Exchange(0, sequence, 1, 32, 0, sequence, message.copy()))
            times.append(time.perf_counter() - started)
        memory = psutil.Process(server._process.pid).memory_info().rss
    return {
        "bytes": initial.nbytes,
        "microseconds": statistics.median(times) * 1e6,
        "server_mb": memory / 1e6,
    }


def main() -> None:
    """Measure both by turns, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    run = recording.begin(__file__)
    models = {"head": head(), "backbone": with_backbone()}
    specs = {name: serialize_model(model, "sgd", "mse") for name, model in models.items()}
    weights = {name: sum(int(np.prod(w.shape)) for w in model.weights) for name, model in models.items()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way, shared in (("shared memory", True), ("TCP", False)):
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in models}
        for _ in range(repeats):
            for name, model in models.items():
                runs[name].append(measure(model, specs[name], shared))
        medians = {
            name: {key: statistics.median(run[key] for run in each) for key in each[0]}
            for name, each in runs.items()
        }
        ratios = {key: medians["backbone"][key] / medians["head"][key] for key in medians["head"]}
        found[way] = medians | {"ratio": ratios}
        print(way, json.dumps(found[way], indent=1))
    run.write({"weights": weights, "repeats": repeats, **found})


if __name__ == "__main__":
    main()
