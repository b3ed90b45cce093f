"""What a worker says of its process when it joins. Keras is imported by then."""

from __future__ import annotations

import os
import platform

from distkeras.events import WorkerAbout
from distkeras.wire.status import memory_of_process


def about_this_process(backend: str, cores: int, executor: str, rows: int | None) -> WorkerAbout:
    """Return the facts of this process.

    Args:
        backend: Keras's backend.
        cores: cores that it may use.
        executor: id of its Spark executor; "" if it is unknown.
        rows: rows of its partition; `None` if they are unknown.
    """
    return WorkerAbout(
        host=platform.node(),
        pid=os.getpid(),
        executor=executor,
        backend=backend,
        device=device_of(backend),
        cores=cores,
        rows=rows,
        memory=memory_of_process(),
    )


def device_of(backend: str) -> str:
    """Return on what the backend computes: "cpu", or the name of its first accelerator."""
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return "cpu" if first.platform == "cpu" else str(first.device_kind)
    if backend == "torch":
        import torch

        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    if backend == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu"))
    return "cpu"
