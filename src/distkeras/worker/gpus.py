"""Which GPU a worker takes, and how several share one: settings that a backend reads at its import."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"
DEVICES = Path("/dev")


def take_gpu(
    given: Sequence[str], index: int, environment: MutableMapping[str, str], devices: Path = DEVICES
) -> None:
    """Show this process the GPUs that Spark gave its task, else one of those that are visible, by turns.

    Memory is taken as it is needed, so that several workers fit on one GPU. PyTorch does so by itself.

    Args:
        given: addresses of Spark's resource API; empty: it manages no GPUs.
        index: of the worker: worker i takes visible GPU i modulo their number.
        environment: is changed.
        devices: where the system lists its GPUs, as `nvidia0`, `nvidia1` ...
    """
    environment.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if given:
        environment[VISIBLE] = ",".join(given)
        return
    visible = _visible(environment, devices)
    if visible:
        environment[VISIBLE] = visible[index % len(visible)]


def _visible(environment: MutableMapping[str, str], devices: Path) -> list[str]:
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    numbers = (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*"))
    return sorted((number for number in numbers if number.isdigit()), key=int)
