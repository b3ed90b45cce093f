"""The windows of many workers, trained by one compiled call on JAX."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.simulation.ahead import Ahead
from distkeras.simulation.gradients import Arrays, JaxModel
from distkeras.simulation.problem import Replica

Rows = npt.NDArray[np.intp]

CPU_BYTES = 4 * 2**20
"""Most bytes of weights in one call on a CPU: its caches hold them from step to step."""

DEVICE_BYTES = 32 * 2**20
"""Most bytes of weights in one call on an accelerator: it trains while others travel from and to the host."""

VIEW_BYTES = 2**20
"""Longest vectors, in bytes, that stay in the array of their call: each keeps all of it in memory."""

MOST_WORKERS = 1024
"""Most workers of one call."""


class Row:
    """A replica's place in a `Stack`, which is free again when the replica is gone."""

    def __init__(self, index: int) -> None:
        self.index = index


class Stack:
    """What replicas keep between windows, on the device: arrays with one row for each. Row 0 is nobody's.

    Args:
        initial: what a new replica begins with.

    Attributes:
        arrays: the stacked arrays, in the order of `initial`.
    """

    def __init__(self, initial: Arrays) -> None:
        from jax import numpy as jnp

        self.initial = [jnp.asarray(value) for value in initial]
        self.arrays = [value[None] for value in initial]
        self._size, self._free = 1, list[int]()

    def row_of(self, replica: Replica) -> tuple[int, bool]:
        """Return the replica's row, and whether it has been given to it just now."""
        row: Row | None = replica.memory.get("row")
        if row is not None:
            return row.index, False
        if not self._free:
            self._grow(max(2 * self._size, replica.num_workers + 1))
        row = replica.memory["row"] = Row(self._free.pop())
        weakref.finalize(row, self._free.append, row.index).atexit = False
        return row.index, True

    def _grow(self, size: int) -> None:
        from jax import numpy as jnp

        size = _power_of(2, size)
        more = [np.zeros((size - self._size, *held.shape[1:]), held.dtype) for held in self.arrays]
        # On the host: nothing to compile.
        self.arrays = [
            jnp.asarray(np.concatenate((np.asarray(held), rows)))
            for held, rows in zip(self.arrays, more, strict=True)
        ]
        self._free += reversed(range(self._size, size))
        self._size = size


class Vectorized:
    """Trains a window of each of many workers; their states and the data stay on the device.

    The workers of one call are a power of 4, some of them padding, and the minibatches a power of 8: so there
    are few programs to compile. A worker whose window is over keeps its weights and state.

    Args:
        model: the model as pure functions.
        local: the integer variables that a worker begins with, such as seeds.
        kept: the optimizer's variables that a worker begins with.
        ahead: the step ahead of the weights, for which each worker has a velocity; `None` for none.
        data: inputs and targets, shape (rows, ...).

    Attributes:
        data: the same on the device.
    """

    def __init__(
        self, model: JaxModel, local: Arrays, kept: Arrays, ahead: Ahead | None, data: tuple[Any, Any]
    ) -> None:
        import jax
        from jax import numpy as jnp

        self._model, self._ahead = model, ahead
        self.data = jnp.asarray(data[0]), jnp.asarray(data[1])
        self._num_local, self._num_kept = len(local), len(kept)
        if ahead is not None:
            kept = [*kept, *(np.zeros(variable.shape, np.float32) for variable in model.trainable)]
        self._stack = Stack([*local, *kept])
        self._program = jax.jit(self._windows, donate_argnums=0)
        self._largest: int | None = None

    def train(
        self, starts: Sequence[Vector], batches: Sequence[Rows], replicas: Sequence[Replica]
    ) -> Iterator[Vector]:
        """Start to train; yield the weights that the replicas have after their windows as they are ready.

        Args:
            starts: weights at the start of each window.
            batches: rows of each window's minibatches, shape (steps, batch size).
            replicas: the workers, all with the same learning rate, each at most once.
        """
        if self._largest is None:
            self._largest = self._choose(starts[0].size, batches[0].shape[1])
        ends, low = [], 0
        for size in _sizes(len(starts), self._largest):
            piece = slice(low, low + size)
            ends.append(self._dispatch(size, starts[piece], batches[piece], replicas[piece]))
            ends[-1].copy_to_host_async()
            low += size
        rows = (row for end in ends for row in np.asarray(end))
        few = starts[0].nbytes <= VIEW_BYTES
        return (row if few else row.copy() for row in islice(rows, len(starts)))

    def _choose(self, size: int, batch_size: int) -> int:
        """Return the most workers of one call."""
        import jax

        if jax.default_backend() != "cpu":
            return _within(DEVICE_BYTES, size)
        before = [np.zeros(segment.shape, np.float32) for segment in self._model.layout.segments()]
        x, y = (jax.ShapeDtypeStruct((batch_size, *array.shape[1:]), array.dtype) for array in self.data)
        # A convolution with other weights for each worker is one in groups, which is slow on a CPU.
        program = jax.make_jaxpr(self._step)((before, self._stack.initial), x, y, 1.0)
        return 1 if "conv_general_dilated" in str(program) else _within(CPU_BYTES, size)

    def _dispatch(
        self, padded: int, starts: Sequence[Vector], batches: Sequence[Rows], replicas: Sequence[Replica]
    ) -> Any:
        """Start the program for `padded` workers; return their weights on the device, one row each."""
        stacked = np.empty((padded, starts[0].size), np.float32)
        np.stack(starts, out=stacked[: len(starts)])
        stacked[len(starts) :] = 0
        lengths = np.zeros(padded, np.int32)
        lengths[: len(starts)] = [len(steps) for steps in batches]
        minibatches = np.zeros((_power_of(8, max(2, lengths.max())), padded, batches[0].shape[1]), np.int32)
        for worker, steps in enumerate(batches):
            minibatches[: len(steps), worker] = steps
        places, fresh = np.zeros(padded, np.int32), np.zeros(padded, bool)
        for worker, replica in enumerate(replicas):
            places[worker], fresh[worker] = self._stack.row_of(replica)
        rate = np.float32(replicas[0].learning_rate)
        plan = places, fresh, minibatches, lengths
        self._stack.arrays, ends = self._program(
            self._stack.arrays, self._stack.initial, stacked, plan, rate, self.data
        )
        return ends

    def _windows(self, arrays: Any, initial: Any, starts: Any, plan: Any, rate: Any, data: Any) -> Any:
        """The compiled call: return the stacked states and the weights after the windows.

        The states that workers begin with are an argument: as constants, each learning rate of a Keras
        optimizer, which is in its state, would have a program of its own to compile.
        """
        import jax
        from jax import numpy as jnp

        places, fresh, minibatches, lengths = plan

        def pick(new: Any, first: Any, second: Any) -> Any:
            return jnp.where(new.reshape(-1, *(1,) * (second.ndim - 1)), first, second)

        def step(number: Any, before: Any) -> Any:
            rows = minibatches[number]
            after = jax.vmap(self._step, (0, 0, 0, None))(before, data[0][rows], data[1][rows], rate)
            return jax.tree.map(
                lambda new, old: pick(number < lengths, new.astype(old.dtype), old), after, before
            )

        state = [pick(fresh, first, array[places]) for first, array in zip(initial, arrays, strict=True)]
        segments = list(self._model.layout.segments())
        weights = [starts[:, segment.elements].reshape(-1, *segment.shape) for segment in segments]
        weights, state = jax.lax.fori_loop(0, lengths.max(), step, (weights, state))
        arrays = [array.at[places].set(new) for array, new in zip(arrays, state, strict=True)]
        return arrays, jnp.concatenate([weight.reshape(len(starts), -1) for weight in weights], 1)

    def _step(self, before: Any, x: Any, y: Any, rate: Any) -> Any:
        """One worker's step: return its new weights and state."""
        import jax

        (weights, state), ahead = before, self._ahead
        split, end = len(self._model.trainable), self._num_local + self._num_kept
        trainable, statistics = weights[:split], weights[split:]
        local, kept, velocities = state[: self._num_local], state[self._num_local : end], state[end:]
        at = trainable
        if ahead is not None:
            at = [weight + ahead.ahead * each for weight, each in zip(trainable, velocities, strict=True)]
        objective = jax.grad(self._model.objective, has_aux=True)
        gradient, (statistics, local) = objective(at, statistics, local, x, y)
        if self._model.optimizer is not None:
            moved, kept = self._model.optimizer.stateless_apply(kept, gradient, at)
        else:
            moved = [weight - rate * part for weight, part in zip(at, gradient, strict=True)]
        if ahead is not None:
            places = zip(moved, at, velocities, strict=True)
            steps = [to - start + ahead.carried * velocity for to, start, velocity in places]
            velocities = [ahead.kept * step for step in steps]
            moved = [weight + ahead.moved * step for weight, step in zip(trainable, steps, strict=True)]
        return [*moved, *statistics], [*local, *kept, *velocities]


def _within(num_bytes: int, size: int) -> int:
    """Return the most workers, a power of 4, whose vectors of `size` elements take at most `num_bytes`."""
    most = min(max(num_bytes // (4 * size), 1), MOST_WORKERS)
    return _power_of(4, most) if _power_of(4, most) == most else _power_of(4, most) // 4


def _power_of(base: int, number: int) -> int:
    """Return the least power of `base` that is at least `number`."""
    power = 1
    while power < number:
        power *= base
    return power


def _sizes(number: int, largest: int) -> list[int]:
    """Return the sizes, powers of 4, of the calls for `number` workers; at most the last half is padding."""
    sizes = []
    while number > 0:
        size = min(_power_of(4, number), largest)
        sizes.append(size if 2 * number >= size else size // 4)
        number -= sizes[-1]
    return sizes
