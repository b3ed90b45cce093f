"""A device with memory of its own, such as a GPU: minibatches are copied to it ahead of their step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.worker.epochs import Passes
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.prefetch import Prefetch
from distkeras.worker.step_buffer import Batch, capacity_for, form_of

if TYPE_CHECKING:
    from distkeras.center import Layout
    from distkeras.wire.client import Client
    from distkeras.wire.group import Group

DEPTH = 2
"""Groups of minibatches that wait on the device: one would do if gathering always took as long."""

Landed = Callable[[], Sequence[Batch]]


class Device(Protocol):
    """The memory of the device on which a replica trains."""

    def put(self, batches: Sequence[Batch]) -> Landed:
        """Start to copy some minibatches of one form to the device. Any thread may call it.

        Args:
            batches: NumPy arrays, which must not be changed afterwards.

        Returns:
            A function that the training thread calls, which returns the minibatches on the device. What that
            thread then computes with them comes after the copy.
        """

    def memory_for(self, size: int, dtype: npt.DTypeLike) -> Vector | None:
        """Return a new vector, shape (size,), in memory of the host from which copies are fast.

        `None` if the backend copies from all memory alike.
        """


@contextmanager
def copied_ahead(passes: Passes, device: Device | None) -> Iterator[Passes]:
    """Yield `passes`, whose minibatches are copied ahead if the replica computes on a `device`."""
    if device is None:
        yield passes
        return
    ahead = CopiedAhead(passes, device)
    try:
        yield ahead
    finally:
        ahead.close(timeout=1.0)  # It may be waiting for rows that do not come.


def receive_for(device: Device | None, layout: Layout, client: Client | Group) -> None:
    """Let `client` receive vectors in memory from which the `device` copies fast, if it has such."""
    memory = None if device is None else device.memory_for(layout.size, layout.dtype)
    if memory is not None:
        client.receive_into(memory)


class CopiedAhead:
    """The minibatches of `passes`, gathered and copied to the device while earlier ones are trained.

    A thread does it. A copy takes as long to begin as a small model's step, so small minibatches are copied
    in groups.

    Args:
        passes: only the thread uses it during an epoch.
        device: receives the minibatches.
    """

    def __init__(self, passes: Passes, device: Device) -> None:
        self._passes = passes
        self._device = device
        self._running: Prefetch[tuple[list[Minibatch], Landed]] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. Only one epoch is read at a time."""
        self.close()
        running = self._running = Prefetch(map(self._put, alike(self._passes.epoch(epoch, start))), DEPTH)
        try:
            for minibatches, landed in running:
                for minibatch, batch in zip(minibatches, landed(), strict=True):
                    yield Minibatch(*batch, minibatch.num_samples)
        finally:
            running.stop()

    def close(self, timeout: float | None = None) -> None:
        """End the thread, which may be waiting for rows.

        Args:
            timeout: seconds to wait for it; the thread blocks no exit. `None` for no limit.
        """
        running, self._running = self._running, None
        if running is not None:
            running.close(timeout)

    def _put(self, minibatches: list[Minibatch]) -> tuple[list[Minibatch], Landed]:
        return minibatches, self._device.put([each[:3] for each in minibatches])


def alike(minibatches: Iterable[Minibatch]) -> Iterator[list[Minibatch]]:
    """Yield the minibatches in groups of one form, each of as many as one buffer holds.

    An exception comes after all minibatches before it.
    """
    group: list[Minibatch] = []
    form, most = None, 0
    try:
        for minibatch in minibatches:
            its = form_of(minibatch[:3])
            if group and its != form:
                yield group
                group = []
            if not group:
                form, most = its, capacity_for(minibatch[:3])
            group.append(minibatch)
            if len(group) == most:
                yield group
                group = []
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group
