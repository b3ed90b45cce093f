"""What is measured on a GPU by turns: the bare step of each backend, and the worker's replica and feed."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from step import PIXELS, bare_step, record_batches
from step import build as build_small

MODELS = {"mlp-500-500": (128, 8), "cnn": (128, 8), "mlp-4096": (512, 4)}
"""Rows of a minibatch, and windows of a turn."""
AHEAD = 2
Put = Callable[[Any, Any], Any]


def build(name: str) -> Any:
    """Return the model `name`, compiled with SGD."""
    if name != "mlp-4096":
        return build_small(name)
    import keras

    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(4096, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((PIXELS,)), *hidden, keras.layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


def put_of(backend: str) -> Put:
    """Return what starts to copy a minibatch to the device, as a user of the backend would write it."""
    if backend == "jax":
        import jax

        return lambda x, y: jax.device_put((x, y))
    import torch

    if not torch.cuda.is_available():
        return lambda x, y: (torch.from_numpy(x), torch.from_numpy(y))

    def put(x: Any, y: Any) -> Any:
        pinned = (torch.from_numpy(each).pin_memory() for each in (x, y))
        return tuple(each.to("cuda", non_blocking=True) for each in pinned)

    return put


def ahead(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of `batches`, each after the two that follow it were made."""
    waiting: deque[Any] = deque()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > AHEAD:
            yield waiting.popleft()
    yield from waiting


def by_thread(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the items of `batches`, which a thread makes two ahead."""
    waiting: queue.Queue[Any] = queue.Queue(AHEAD)

    def make() -> None:
        for batch in batches:
            waiting.put(batch)
        waiting.put(None)

    threading.Thread(target=make, daemon=True).start()
    yield from iter(waiting.get, None)


def bare_sides(backend: str, name: str, batch_size: int, x: Any, y: Any) -> dict[str, Callable[[], None]]:
    """Return one epoch of each bare side."""
    model = build(name)
    x = x.reshape(-1, *model.input_shape[1:])
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=(x[:batch_size], y[:batch_size], None))
    step, put, draw = bare_step(backend, model), put_of(backend), np.random.default_rng(0)

    def batches() -> Iterator[Any]:
        order = draw.permutation(len(x))
        for first in range(0, len(x), batch_size):
            rows = order[first : first + batch_size]
            yield put(x[rows], y[rows])

    def train(source: Callable[[Iterator[Any]], Iterator[Any]]) -> None:
        for each in source(batches()):
            wait = step(*each)
        wait()

    one = put(x[:batch_size], y[:batch_size])

    def train_resident() -> None:
        for _ in range(len(x) // batch_size):
            wait = step(*one)
        wait()

    return {
        "resident": train_resident,
        "bare": lambda: train(ahead),
        "bare_thread": lambda: train(by_thread),
    }


def our_feed(model: Any, batch_size: int, x: Any, y: Any, num_epoch: int | None) -> Any:
    """Return a worker's feed of these rows."""
    from distkeras.worker.columns import Column, Columns
    from distkeras.worker.feed import Feed

    columns = Columns(
        (Column("image", tuple(model.input_shape[1:]), "float32"),), (Column("label", (), "int32"),)
    )
    arrivals = record_batches(x, y)
    return Feed(arrivals, columns, batch_size=batch_size, partition=0, shuffle=True, num_epoch=num_epoch)


def our_passes(feed: Any, replica: Any) -> Any:
    """Return the feed as a worker's loop reads it."""
    from distkeras.worker.device import CopiedAhead

    return feed if replica.device is None else CopiedAhead(feed, replica.device)


def our_replica(name: str) -> Any:
    """Return a worker's replica of the model `name`."""
    from distkeras.model.spec import deserialize_model, serialize_model
    from distkeras.worker.backends import make_replica

    return make_replica(deserialize_model(serialize_model(build(name))))


def our_sides(replica: Any, batch_size: int, x: Any, y: Any) -> dict[str, Callable[[], None]]:
    """Return one epoch of the worker without exchanges, copied ahead and in place."""
    feed = our_feed(replica.model, batch_size, x, y, None)
    deque(feed.epoch(0), maxlen=0)  # It spools.

    def train(passes: Any) -> None:
        for minibatch in passes.epoch(1):
            replica.train(minibatch.x, minibatch.y, minibatch.sample_weight)
        replica.metrics()

    passes = our_passes(feed, replica)
    return {"worker": lambda: train(passes), "in_place": lambda: train(feed)}


def pageable(backend: str, vector: Any) -> dict[str, Callable[[], Any]]:
    """Return what copies `vector` to the device and back by the backend's plain calls."""
    if backend == "jax":
        import jax

        there = jax.block_until_ready(jax.device_put(vector))
        add = jax.jit(lambda array: array + 1)  # A new array: one that was read is kept on the host.
        return {
            "pageable_write": lambda: jax.block_until_ready(jax.device_put(vector)),
            "pageable_read": lambda: np.array(add(there)),
        }
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sent = torch.from_numpy(vector).to(device)

    def write() -> None:
        sent.copy_(torch.from_numpy(vector))
        if device == "cuda":
            torch.cuda.synchronize()

    return {"pageable_write": write, "pageable_read": lambda: (sent + 1).cpu().numpy()}


class Until:
    """Epochs of `passes` one after the other as one, for some seconds from the first minibatch on."""

    def __init__(self, passes: Any, seconds: float) -> None:
        self._passes = passes
        self._seconds = seconds

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Yield minibatches."""
        ends = float("inf")
        while True:
            for minibatch in self._passes.epoch(epoch):
                yield minibatch
                ends = min(ends, time.monotonic() + self._seconds)
                if time.monotonic() > ends:
                    return
            epoch += 1


def memory_of(backend: str) -> dict[str, int]:
    """Return bytes of the GPU's memory that this process used at most, and those that it may use."""
    if backend == "jax":
        import jax

        stats = jax.devices()[0].memory_stats() or {}
        return {"peak": stats.get("peak_bytes_in_use", 0), "limit": stats.get("bytes_limit", 0)}
    import torch

    if not torch.cuda.is_available():
        return {}
    return {"peak": torch.cuda.max_memory_reserved(), "limit": torch.cuda.mem_get_info()[1]}
