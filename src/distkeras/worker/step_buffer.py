"""A buffer of minibatches that one call of the compiled step trains together."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

Batch = tuple[Any, Any, Any]
"""Inputs, targets and sample weights: each an array, a list or dict of arrays, or `None`."""

Form = tuple[Any, ...]
"""Structure, shapes and types of a minibatch, on which a compiled step depends."""

BYTES = 2 * 2**20
"""Maximum size of a buffer: about what stays in a core's cache until it is trained."""

MAX_STEPS = 16
"""Maximum number of minibatches per call: more gain nothing."""

ALIGNMENT = 64
"""Alignment at which XLA reads an array in place. Else it copies in its own thread, and computes there."""


@final
class StepBuffer:
    """Collects copies of minibatches of one form in one buffer, or in several in turn.

    Args:
        batch: a minibatch of the form.
        num_buffers: number of buffers. With 1, the next `add` overwrites the result of `take`; with 2, the
            first `add` after the next `take` does.

    Attributes:
        capacity: number of minibatches that fit.
        count: number of minibatches in the buffer.
    """

    def __init__(self, batch: Batch, num_buffers: int = 1) -> None:
        self.capacity = capacity_for(batch)
        self.count = 0
        buffers = [map_leaves(self._room_for, batch) for _ in range(num_buffers)]
        self._buffers = itertools.cycle((buffer, leaves_of(buffer)) for buffer in buffers)
        self._buffer, self._leaves = next(self._buffers)

    def add(self, batch: Batch) -> None:
        """Copy one minibatch into the buffer."""
        for leaf, array in zip(self._leaves, leaves_of(batch), strict=True):
            leaf[self.count] = array
        self.count += 1

    def clear(self) -> None:
        """Forget the minibatches in the buffer."""
        self.count = 0

    def take(self) -> tuple[Batch, int]:
        """Return the buffer, shape (capacity, rows, ...), and its number of minibatches; start a new one."""
        taken, count, self.count = self._buffer, self.count, 0
        self._buffer, self._leaves = next(self._buffers)
        return taken, count

    def _room_for(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        shape = (self.capacity, *array.shape)
        if array.dtype.hasobject:
            return np.empty(shape, array.dtype)
        num_bytes = self.capacity * array.nbytes
        memory = np.empty(num_bytes + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + num_bytes].view(array.dtype).reshape(shape)


def capacity_for(batch: Batch) -> int:
    """Return the number of minibatches like `batch` that a buffer holds."""
    num_bytes = sum(array.nbytes for array in leaves_of(batch))
    return max(1, min(MAX_STEPS, BYTES // max(1, num_bytes)))


def form_of(value: Any) -> Form:
    """Return structure, shapes and types of a minibatch."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype)
    if isinstance(value, dict):
        return tuple((name, form_of(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(form_of(part) for part in value)
    if value is None:
        return (None,)
    return (tuple(value.shape), value.dtype)  # An array on a device.


def leaves_of(value: Any) -> list[npt.NDArray[Any]]:
    """Return the arrays of a minibatch in order."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves_of(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves_of(part)]
    return []


def map_leaves(change: Callable[[npt.NDArray[Any]], Any], value: Any) -> Any:
    """Return `value`, a minibatch or a part of one, with `change` applied to each array, in order."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {name: map_leaves(change, part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(change, part) for part in value)
    return value
