"""Choose a worker's GPU, and let several workers share one: settings that a backend reads at import."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")

SHARED = 0.9
"""Part of a GPU's memory that its workers divide. Each also needs some outside of its backend's allocator."""


@dataclass(frozen=True)
class Sharing:
    """How many workers compute on one GPU.

    Attributes:
        gpu: workers on a GPU that Spark's resource API gives.
        machine: workers on a machine where Spark manages no GPUs: they share those that are visible.
    """

    gpu: int = 1
    machine: int = 1


ALONE = Sharing()


def take_gpu(
    given: Sequence[str],
    index: int,
    environment: MutableMapping[str, str],
    devices: Path = DEVICES,
    sharing: Sharing = ALONE,
) -> float | None:
    """Make visible to this process the GPUs that Spark gave its task, else one visible GPU in round-robin.

    The backend allocates memory as needed, so that several workers fit on one GPU. PyTorch does so by itself.
    If several workers share the GPU, none may take the memory of the others: JAX reads its share here.

    Args:
        given: addresses of Spark's resource API; empty if Spark manages no GPUs.
        index: index of the worker: worker i takes visible GPU i modulo their number.
        environment: environment variables, changed in place.
        devices: directory where the system lists its GPUs, as `nvidia0`, `nvidia1` ...
        sharing: how many workers share a GPU.

    Returns:
        The part of the GPU's memory that this process may use; `None` for no limit.
    """
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if given:
        environment[VISIBLE] = ",".join(given)
        workers = sharing.gpu
    else:
        visible = _visible(environment, devices)
        if not visible:
            return None
        environment[VISIBLE] = visible[index % len(visible)]
        workers = -(-sharing.machine // len(visible))
    if workers == 1:
        return None
    share = round(SHARED / workers, 4)
    environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(share))
    return share


def _visible(environment: MutableMapping[str, str], devices: Path) -> list[str]:
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*"))
    return sorted((number for number in numbers if number.isdigit()), key=int)


def gpus_of_backend(backend: str) -> int:
    """Return the number of GPUs that the backend, which this process has imported, would train on."""
    if backend == "jax":
        import jax

        return sum(device.platform == "gpu" for device in jax.devices())
    if backend == "torch":
        import torch

        return int(torch.cuda.device_count())
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))
