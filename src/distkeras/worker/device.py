"""A device with memory of its own, such as a GPU: minibatches are copied to it ahead of their step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from distkeras.worker.epochs import Passes
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.prefetch import Prefetch
from distkeras.worker.step_buffer import Batch

DEPTH = 2
"""Minibatches that wait on the device: one would do if gathering always took as long."""


class Device(Protocol):
    """The memory of the device on which a replica trains."""

    def put(self, batch: Batch) -> Callable[[], Batch]:
        """Start to copy a minibatch to the device. Any thread may call it.

        Args:
            batch: NumPy arrays, which must not be changed afterwards.

        Returns:
            A function that the training thread calls, which returns the arrays on the device. What that
            thread then computes with them comes after the copy.
        """


@contextmanager
def copied_ahead(passes: Passes, device: Device | None) -> Iterator[Passes]:
    """Yield `passes`, whose minibatches are copied ahead if the replica computes on a `device`."""
    if device is None:
        yield passes
        return
    ahead = Ahead(passes, device)
    try:
        yield ahead
    finally:
        ahead.close(timeout=1.0)  # It may be waiting for rows that do not come.


class Ahead:
    """The minibatches of `passes`, gathered and copied to the device while earlier ones are trained.

    A thread does it, at most `DEPTH` minibatches ahead.

    Args:
        passes: only the thread uses it during an epoch.
        device: receives the minibatches.
    """

    def __init__(self, passes: Passes, device: Device) -> None:
        self._passes = passes
        self._device = device
        self._running: Prefetch[tuple[Minibatch, Callable[[], Batch]]] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. Only one epoch is read at a time."""
        self.close()
        running = self._running = Prefetch(map(self._put, self._passes.epoch(epoch, start)), DEPTH)
        try:
            for minibatch, landed in running:
                x, y, sample_weight = landed()
                yield Minibatch(x, y, sample_weight, minibatch.num_samples)
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

    def _put(self, minibatch: Minibatch) -> tuple[Minibatch, Callable[[], Batch]]:
        x, y, sample_weight, _ = minibatch
        return minibatch, self._device.put((x, y, sample_weight))
