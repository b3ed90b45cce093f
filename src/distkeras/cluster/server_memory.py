"""How much memory a parameter server needs, known before it starts."""

from __future__ import annotations

import numpy as np

from distkeras.algorithms import Vector
from distkeras.center import CenterConfig
from distkeras.center.kept import MOST
from distkeras.wire.codecs import Codec
from distkeras.wire.compression import packing_of
from distkeras.wire.staging import STAGING_BYTES

PROCESS_BYTES = 128 * 2**20
"""The interpreter with its modules, and up to 64 MiB of events that the driver has not read."""
WRITING_BYTES = 16 * 2**20
"""The piece of an array that NumPy copies before it is written."""
SAMPLE = 4096
"""Elements of a center on which the size of an algorithm's state is found."""


def memory_needed(
    config: CenterConfig,
    size: int,
    *,
    compression: Codec | None = None,
    snapshots: bool = False,
    shared_memory: bool = False,
    follows: bool = False,
    report_bytes: int = 0,
) -> dict[str, int]:
    """Return the most bytes that a server of a job needs, by purpose.

    Args:
        config: settings of the center.
        size: elements of the center at this server.
        compression: the codec of the workers' messages; `None` for none.
        snapshots: whether the server writes snapshots.
        shared_memory: whether workers of the server's machine share memory with it.
        follows: whether it handles its requests in the order of another server.
        report_bytes: the local states of all workers that send theirs.
    """
    workers, itemsize = config.num_workers, np.dtype(config.dtype).itemsize
    vector = size * itemsize
    part = vector if config.fragments is None else max(config.fragments.sizes) * itemsize
    regions = 0 if config.regions is None else config.regions.num_regions
    centers = workers if config.independent else max(1, regions)
    state = centers * _state_bytes(config.region(), size)
    # A region keeps its anchor; an exchange needs its center, a message, a copy of that, and new weights.
    above = _state_bytes(config.above(), size) + (2 * regions + 4) * vector if regions else 0
    shared = shared_memory and compression is None
    waits = (config.algorithm.synchronous or follows) and not shared  # Else in the shared memory.
    packing = packing_of(config.algorithm, compression, size, config.trainable_of(size))
    need = {
        "the process": PROCESS_BYTES,
        "the center": centers * vector,
        "the algorithm's state": state,
        "the global center, its state, and what regions keep of it": above,
        "the copy for a snapshot": centers * vector + state + above if snapshots else 0,
        "writing a snapshot": min(WRITING_BYTES, vector) if snapshots else 0,
        "vectors in transit": STAGING_BYTES + vector,
        "messages of a round, or waiting for their turn": workers * part if waits else 0,
        "the mean message of a round": part if config.algorithm.synchronous else 0,
        "the fragments for a worker that joins": vector if config.fragments is not None else 0,
        "the center for workers that join": workers * vector if follows else 0,
        "copies at the ends of epochs": MOST * (1 if regions else centers) * vector
        if config.epoch_rows is not None
        else 0,
        "answers that wait for the driver": workers * vector if config.until is not None else 0,
        "the center that the driver writes": vector if config.until is not None else 0,
        "the local states of workers": report_bytes * (3 if snapshots else 2),
        "memory shared with each worker": workers * vector if shared else 0,
    }
    if config.algorithm.needs_pulled:
        need["the center that each worker has received"] = workers * vector * (2 if config.overlap else 1)
    if packing is not None:
        base = vector if packing.weights or packing.replies else 0
        need["compression, for each worker"] = workers * (2 * packing.num_bytes + base)
        need["Numba"] = packing.kernel_bytes
    return {purpose: count for purpose, count in need.items() if count}


def check_memory(memory: int, need: dict[str, int]) -> None:
    """Raise ValueError if a server with this `need` does not fit into `memory` bytes."""
    total = sum(need.values())
    if total <= memory:
        return
    listed = ", ".join(f"{purpose} {_mib(count)}" for purpose, count in need.items())
    raise ValueError(
        f"A parameter server of this training may need {_mib(total)}, which is more than "
        f"`ServerOptions(memory=...)` allows: {listed}. Raise the limit, use more parameter servers, or "
        "reduce the largest part (docs/faults.md, The server's memory). Received: "
        f"memory={memory} ({_mib(memory)})"
    )


def _state_bytes(config: CenterConfig, size: int) -> int:
    """Return the bytes of the algorithm's state.

    An array has one or more rows as long as the center, such as one per worker, or a fixed size.
    """
    elements = config.trainable_of(size)
    sample: Vector = np.zeros(min(SAMPLE, max(elements, 1)), config.dtype)
    state = config.algorithm.init_with(sample, config.num_workers)
    arrays = [np.asarray(value) for value in state.values()]
    grow = sum(array.nbytes for array in arrays if array.shape[-1:] == sample.shape)
    fixed = sum(array.nbytes for array in arrays if array.shape[-1:] != sample.shape)
    return grow * elements // sample.size + fixed


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
