"""Minibatches that wait to be trained by one call of the compiled step."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, final

import numpy as np
import numpy.typing as npt

Batch = tuple[Any, Any, Any]
"""Inputs, targets and sample weights: each an array, a list or dict of arrays, or `None`."""

Form = tuple[Any, ...]
"""Structure, shapes and types of a minibatch: what a compiled step depends on."""

BYTES = 2 * 2**20
"""What may wait: about what stays in a core's cache until it is trained."""

MAX_STEPS = 16
"""Minibatches of one call: more no longer pays."""

ALIGNMENT = 64
"""Where XLA reads an array in place. It copies others in a thread of its own, and computes there too."""


@final
class StepBuffer:
    """Collects copies of minibatches of one form, side by side, in one place or in several by turns.

    Args:
        batch: a minibatch of the form.
        num_buffers: 1: what `take` returned is overwritten by the next `add`; 2: by the one after the next
            `take`.

    Attributes:
        capacity: minibatches that it holds.
        count: how many it holds.
    """

    def __init__(self, batch: Batch, num_buffers: int = 1) -> None:
        num_bytes = sum(array.nbytes for array in leaves_of(batch))
        self.capacity = max(1, min(MAX_STEPS, BYTES // max(1, num_bytes)))
        self.count = 0
        buffers = [map_leaves(self._room_for, batch) for _ in range(num_buffers)]
        self._buffers = itertools.cycle((buffer, leaves_of(buffer)) for buffer in buffers)
        self._buffer, self._leaves = next(self._buffers)

    def add(self, batch: Batch) -> None:
        """Copy one more minibatch."""
        for leaf, array in zip(self._leaves, leaves_of(batch), strict=True):
            leaf[self.count] = array
        self.count += 1

    def take(self) -> tuple[Batch, int]:
        """Return all `capacity` places, shape (capacity, rows, ...), and how many are filled; begin anew."""
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


def form_of(value: Any) -> Form:
    """Return structure, shapes and types of a minibatch."""
    if isinstance(value, np.ndarray):
        return (value.shape, value.dtype)
    if isinstance(value, dict):
        return tuple((name, form_of(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(form_of(part) for part in value)
    return (value,)  # None


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
    """Return `value`, a minibatch or a part of one, with each array changed, in order."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {name: map_leaves(change, part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(change, part) for part in value)
    return value
