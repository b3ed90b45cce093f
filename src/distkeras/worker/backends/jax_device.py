"""A device of JAX: minibatches are copied to it in stacks, and weights come back by page-locked memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import SingleDeviceSharding

from distkeras.algorithms import Vector
from distkeras.worker.step_buffer import Batch, Form, form_of, leaves_of, map_leaves

LOCKED = "pinned_host"
"""JAX's name for page-locked memory of the host."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An array of one minibatch on the device, where it lies in a stack with those of others.

    Attributes:
        shape: shape of the array.
        dtype: its type.
        stack: the minibatches, stacked along the first axis of each array.
        index: place of this minibatch in the stack, on the device too.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stack: Batch
    index: jax.Array


@final
class JaxDevice:
    """A device of JAX. A copy begins at once, and what is computed with it waits for its end.

    Stacked minibatches are copied by one call, and a compiled step takes its own out of the stack. Stacks of
    one form all have one size, even where fewer minibatches are left: each size would be compiled anew.

    Args:
        device: default: JAX's. Arrays that are put on a device by name are tied to it, and so is a compiled
            step: it would be compiled a second time for weights that are not.
    """

    def __init__(self, device: jax.Device | None = None) -> None:
        self._device = device
        own = device or jax.devices()[0]
        kinds = [memory.kind for memory in own.addressable_memories()]
        # Page-locked memory of the host: copies into other memory take up to 40 times as long.
        self._locked = SingleDeviceSharding(own, memory_kind=LOCKED) if LOCKED in kinds else None
        self._sizes: dict[Form, int] = {}
        self._indices: list[jax.Array] = []

    def put(self, batches: Sequence[Batch]) -> Callable[[], Sequence[Batch]]:
        # The first minibatch of a form tells whether others of its form come next to it.
        size = self._sizes.setdefault(form_of(batches[0]), len(batches))
        placed: list[Batch] = []
        for first in range(0, len(batches), size):
            placed += self._put_stack(batches[first : first + size], size)
        return lambda: placed

    def memory_for(self, size: int, dtype: npt.DTypeLike) -> Vector | None:
        """Return a new vector in page-locked memory, if JAX has such; XLA copies from it at once."""
        return None if self._locked is None else self.read(jnp.zeros(size, dtype))

    def read(self, flat: jax.Array) -> Vector:
        """Return a copy of an array of the device, in page-locked memory if JAX has it."""
        if self._locked is None:
            return np.array(flat)
        copy = jax.block_until_ready(jax.device_put(flat, self._locked))
        if not copy.nbytes:
            return np.empty(flat.shape, flat.dtype)
        # A view: nobody else reads or writes the memory, which the block keeps.
        block = (ctypes.c_byte * copy.nbytes).from_address(copy.unsafe_buffer_pointer())
        block.owner = copy
        return np.frombuffer(block, flat.dtype)

    def _put_stack(self, batches: Sequence[Batch], size: int) -> list[Batch]:
        if size == 1:
            return [jax.device_put(batches[0], self._device)]
        room = map_leaves(lambda array: np.empty((size, *array.shape), array.dtype), batches[0])
        for index, batch in enumerate(batches):
            for leaf, array in zip(leaves_of(room), leaves_of(batch), strict=True):
                leaf[index] = array
        stack: Batch = jax.device_put(room, self._device)
        while len(self._indices) < size:
            self._indices.append(jax.device_put(np.int32(len(self._indices)), self._device))

        def slots(index: jax.Array) -> Batch:
            made: Batch = map_leaves(lambda array: Slot(array.shape, array.dtype, stack, index), batches[0])
            return made

        return [slots(index) for index in self._indices[: len(batches)]]
