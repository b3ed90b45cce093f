"""Write what this release writes, so that later ones can be tested to read it.

    python tests/formats/write.py 0.1

makes the folder `tests/formats/0.1`: a snapshot and a lease, one frame of every kind, an estimator of Spark
ML, and a run. Execute it for a release, and once more for a format that has changed before its first release;
what an earlier release wrote is never written anew.
"""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
import typing
from pathlib import Path
from typing import Any

import keras
import numpy as np

from distkeras import events
from distkeras.algorithms import DiLoCo
from distkeras.center import Center, CenterConfig, answers, requests, take_snapshot
from distkeras.center.orders import Orders
from distkeras.cluster.session import local_session
from distkeras.ml import KerasEstimator
from distkeras.runs import Checkpoints, Run, RunOptions
from distkeras.wire import frames
from distkeras.wire.lease import VERSION as LEASE_VERSION
from distkeras.wire.lease import Holder

HERE = Path(__file__).parent
SIZE = 6


def center() -> Center:
    """Return a center with a rule that has a state, of which a commit was taken."""
    found = Center(
        CenterConfig(DiLoCo(), 2, num_trainable=4),
        np.linspace(-1, 1, SIZE, dtype=np.float32),
        clock=lambda: 7.0,
        num_shards=2,
    )
    for worker in range(2):
        found.handle(requests.Join(worker))
    for worker in range(2):
        message = np.full(SIZE, 0.25 + worker, np.float32)
        found.handle(requests.Exchange(worker, 1, 2, 8, 0, 2, message, {"loss": 0.5}))
    found.handle(requests.Leave(1))
    return found


def snapshot() -> bytes:
    """Return a snapshot of that center, as a file."""
    file = io.BytesIO()
    take_snapshot(center(), {"batch_size": 32}).write(file)
    return file.getvalue()


def all_messages() -> list[Any]:
    """Return one message of every kind, and in the page of events one event of every kind."""
    vector = np.linspace(-1, 1, SIZE, dtype=np.float32)
    known: dict[Any, Any] = {
        int: 3,
        int | None: 3,
        float: 0.5,
        str: "text",
        bool: True,
        dict[str, float]: {"loss": 0.5},
        list[int]: [1, 2],
        list[bool]: [True, False],
        list[answers.LogEntry]: [answers.LogEntry(1, 4, 9, 2, 0, "take")],
        bytes: bytes(range(16)),
        Orders: Orders(3, True, 0.5, 4, 5, 6, 7, 8),
    }
    known[Orders | None] = known[Orders]
    known[events.Timing | None] = events.Timing(0.5, 0.25, 0.125, 0.0, 4096, 2048, 1)
    known[events.WorkerAbout | None] = events.WorkerAbout("host", 7, "1", "jax", "cpu", 2, 300, 2**20)
    known[events.Phase | None] = "training"

    def value(kind: Any) -> Any:
        if typing.get_origin(kind) is typing.Literal:
            return typing.get_args(kind)[-1]
        return known.get(kind, vector)

    def example(cls: type) -> Any:
        return cls(*map(value, typing.get_type_hints(cls).values()))

    page = answers.Polled([example(cls) for cls in typing.get_args(events.Event)], 5, 2)
    kinds = [*frames.REQUESTS.values(), *frames.REPLIES.values()]
    return [page if cls is answers.Polled else example(cls) for cls in kinds]


def encoded(message: Any) -> bytes:
    """Return a message as a frame, with its checksum."""
    head, vector = frames.encode(message, True)
    return head if vector is None else head + vector.tobytes()


def lease(folder: Path) -> None:
    """Write what a run has in the folder of its snapshots."""
    folder.mkdir(exist_ok=True)
    holder = Holder("run", 3, "machine", 7, "2026-01-02T03:04:05+00:00")
    text = json.dumps({"version": LEASE_VERSION, **dataclasses.asdict(holder)})
    (folder / "lease-0000000003.json").write_text(text)


def estimator(folder: Path) -> None:
    """Save an estimator of Spark ML."""
    session = local_session(1)
    made = KerasEstimator(
        algorithm="LocalSGD", batchSize=8, numEpoch=3, loss="mse", metrics=["mae"], compression="int8"
    )
    made.write().overwrite().save(str(folder))
    for left in folder.rglob("*.crc"):
        left.unlink()
    session.stop()


def run(folder: Path) -> None:
    """Write a run of two epochs that a driver went on with, and did not end."""
    shutil.rmtree(folder, ignore_errors=True)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    options = RunOptions(str(folder), Checkpoints(keep=1))
    windows = [events.Window(0, 0, index, 2, 8, {"loss": 0.5}, 0, 2.0, index + 1) for index in range(3)]
    with Run.open(options) as first:
        first.begin({"batch_size": 32, "num_epoch": 1}, model=model, facts={"app": "local-1"})
        for window in windows:
            first.write(window)
        state = {"callbacks": [["EarlyStopping", {"best": float("inf"), "best_weights": [np.ones((2, 1))]}]]}
        first.epoch(0, {"loss": 0.5, "val_loss": float("nan")}, state, samples=24)
        first.checkpoint(0, {"loss": 0.5}, model)
        first.finish({"reason": "finished"})
    with Run.open(options, resume=True) as second:
        second.begin({"batch_size": 32, "num_epoch": 2}, epochs=1, source="snapshot")
        second.write(events.ServerRestored([2], [False], 16, 2, 3.0))
        second.write(windows[2])
        second.epoch(1, {"loss": 0.25}, {}, samples=48)
        second.checkpoint(1, {"loss": 0.25}, model)


def main() -> None:
    """Write the folder of a release."""
    folder = HERE / sys.argv[1]
    folder.mkdir(exist_ok=True)
    (folder / "snapshot.npz").write_bytes(snapshot())
    every = {type(message).__name__: encoded(message).hex() for message in all_messages()}
    text = json.dumps({"version": frames.VERSION, "frames": every}, indent=1)
    (folder / "frames.json").write_text(text + "\n")
    lease(folder / "lease")
    estimator(folder / "estimator")
    run(folder / "run")


if __name__ == "__main__":
    main()
