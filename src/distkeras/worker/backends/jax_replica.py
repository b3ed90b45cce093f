"""The replica on JAX: all state is outside the model, and every step is a pure function of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, final

import jax
import jax.numpy as jnp
import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.model.variables import Cell
from distkeras.worker.backends.jax_device import JaxDevice, Slot
from distkeras.worker.metric_states import Sums
from distkeras.worker.replica import Replica, Steps
from distkeras.worker.step_buffer import Batch

State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]
"""Trainable, non-trainable, optimizer and metrics variables, as Keras's `train_step` takes them."""


@final
class JaxReplica(Replica):
    """Donates the state to each step, so that JAX updates the weights in place."""

    _state: State

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._load()
        self._on_cpu = jax.default_backend() == "cpu"
        self.device: JaxDevice | None = None if self._on_cpu else JaxDevice()
        ahead = jax.config.read("jax_cpu_enable_async_dispatch")
        if ahead:
            self._num_buffers = 2
        # Without it XLA still copies large minibatches in another thread, and then computes there.
        self._waits = self._on_cpu and not ahead
        places = {
            id(variable): (group, index)
            for group, variables in enumerate(self._variables())
            for index, variable in enumerate(variables)
        }
        self._places = [places[id(cell)] for cell in self._cells]
        dtype = self.layout.dtype
        self._flatten = jax.jit(partial(_flatten, momentum=self._momentum, dtype=dtype))
        self._split = jax.jit(partial(_splitter(self._cells), momentum=self._momentum))
        velocities = {id(variable) for variable in self._velocities}
        self._velocity_indices = [
            index
            for index, variable in enumerate(model.optimizer.variables if velocities else [])
            if id(variable) in velocities
        ]

    def _read(self) -> Vector:
        velocities = [self._state[2][index] for index in self._velocity_indices]
        weights = [self._state[group][index] for group, index in self._places]
        if self._on_cpu:
            # On CPUs an array is a view of JAX's memory: NumPy concatenates five times as fast as XLA.
            vector = _join(weights, self.layout.dtype)
            if velocities:
                vector[: self.layout.num_trainable] -= self._momentum * _join(velocities, self.layout.dtype)
            return vector
        flat = self._flatten(weights, velocities)
        return np.array(flat) if self.device is None else self.device.read(flat)

    def _write(self, vector: Vector) -> None:
        parts = self._split(vector, [self._state[2][index] for index in self._velocity_indices])
        # JAX may read the caller's array in place, but not after this method returns.
        jax.block_until_ready(parts)
        groups = [list(group) for group in self._state]
        for (group, index), part in zip(self._places, parts, strict=True):
            groups[group][index] = part
        self._state = (groups[0], groups[1], groups[2], groups[3])

    def _sync(self) -> None:
        for group, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    def _load(self) -> None:
        trainable, others, optimizer, metrics = map(_values, self._variables())
        self._state = (trainable, others, optimizer, metrics)

    def _variables(self) -> tuple[list[keras.Variable], ...]:
        """Return the model's variables in the order of the state."""
        optimizer = self.model.optimizer
        return (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            optimizer.variables if optimizer is not None else [],
            self.model.metrics_variables if self._prepared else [],
        )

    def _prepare(self) -> None:
        self._state = (*self._state[:3], _values(self.model.metrics_variables))
        self._fresh_metrics = jax.jit(self._make_fresh_metrics)
        self._compiled = self.model.jit_compile and not self.model.run_eagerly
        self._train_step: Any = self._counted_step
        self._step_at: Any = self._counted_step_at
        if self._compiled:
            self._train_step = jax.jit(self._counted_step, donate_argnums=0)
            self._step_at = jax.jit(self._counted_step_at, donate_argnums=0)
        self._train_steps = jax.jit(self._loop, donate_argnums=0)

    def _counted_step(self, state: State, batch: Batch) -> tuple[dict[str, Any], State]:
        # Python runs this function when JAX traces it, once per compilation.
        self.num_compilations += 1
        logs, state = self.model.train_step(state, batch)
        return logs, state

    def _counted_step_at(self, state: State, stack: Batch, index: jax.Array) -> tuple[dict[str, Any], State]:
        return self._counted_step(state, _taken(stack, index))

    def _compile_steps(self, batch: Batch) -> Steps | None:
        if not self._compiled:
            return None
        traced = self._train_step.trace(self._state, batch)
        if not _loops_well(traced.jaxpr) or _forms(traced.out_info[1]) != _forms(self._state):
            return None
        return self._steps

    def _steps(self, batches: Batch, count: int) -> dict[str, Any]:
        if self._num_buffers > 1:  # The caller next fills the buffer of the previous call.
            jax.block_until_ready(self._state)
        logs: dict[str, Any]
        logs, self._state = self._train_steps(self._state, batches, count)
        if self._num_buffers == 1:  # The caller next fills the buffer of this call.
            jax.block_until_ready(self._state)
        return logs

    def _loop(self, state: State, batches: Batch, count: int) -> tuple[dict[str, Any], State]:
        def step(index: Any, carried: tuple[dict[str, Any], State]) -> tuple[dict[str, Any], State]:
            trained: tuple[dict[str, Any], State] = self._train_step(carried[1], _taken(batches, index))
            return trained

        logs, _ = jax.eval_shape(self._train_step, state, _taken(batches, 0))
        first = jax.tree.map(lambda log: jnp.zeros(log.shape, log.dtype), logs)
        last: tuple[dict[str, Any], State] = jax.lax.fori_loop(0, count, step, (first, state))
        return last

    def _step(self, batch: Batch) -> dict[str, Any]:
        logs: dict[str, Any]
        slot = next(iter(jax.tree.leaves(batch[0])), None)
        if isinstance(slot, Slot):
            logs, self._state = self._step_at(self._state, slot.stack, slot.index)
            return logs
        logs, self._state = self._train_step(self._state, batch)
        if self._waits:
            jax.block_until_ready(self._state)
        return logs

    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        fetched: dict[str, Any] = jax.device_get(logs)
        return fetched

    def _reset_metrics(self) -> None:
        self._state = (*self._state[:3], self._fresh_metrics(self._state[3]))

    def _take_metrics(self) -> list[Sums]:
        values: Any = self._state[3]
        if not self._on_cpu:  # On CPUs this takes ten times as long as the arrays themselves.
            values = jax.device_get(values)
        taken = [np.array(value, np.float64) for value in values]
        self._reset_metrics()
        return taken

    def _make_fresh_metrics(self, values: list[jax.Array]) -> list[jax.Array]:
        variables = self.model.metrics_variables
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            self.empty_metrics()
        fresh = [scope.get_current_value(variable) for variable in variables]
        return [jnp.asarray(value, old.dtype) for value, old in zip(fresh, values, strict=True)]


def _loops_well(jaxpr: Any) -> bool:
    """Whether a step is as fast inside a loop of XLA as alone.

    On CPUs a convolution inside a loop takes six times as long. A loop cannot keep the order of effects
    (a print, a callback).
    """
    return not jaxpr.effects and "conv_general_dilated" not in str(jaxpr)


def _taken(stack: Batch, index: Any) -> Batch:
    """Return minibatch `index` of a stack."""
    batch: Batch = jax.tree.map(lambda rows: jax.lax.dynamic_index_in_dim(rows, index, keepdims=False), stack)
    return batch


def _forms(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


def _values(variables: list[keras.Variable]) -> list[jax.Array]:
    return [variable.value for variable in variables]


def _join(arrays: list[jax.Array], dtype: str) -> Vector:
    parts = [np.asarray(array).ravel() for array in arrays]
    return np.concatenate(parts or [np.empty(0, dtype)], dtype=dtype, casting="unsafe")


def _flatten(weights: list[jax.Array], velocities: list[jax.Array], momentum: float, dtype: str) -> jax.Array:
    """Concatenate `weights`, the first of them less `momentum` times their velocities."""
    weights = list(weights)
    for index, velocity in enumerate(velocities):
        weights[index] -= momentum * velocity
    # A model may have no weights at all.
    return jnp.concatenate([jnp.zeros(0, dtype), *(weight.astype(dtype).ravel() for weight in weights)])


def _splitter(variables: Sequence[Cell]) -> Callable[..., list[jax.Array]]:
    """Return the function that splits a vector into weights of the shapes and types of `variables`.

    It adds `momentum` times their velocities to the first weights.
    """
    shapes = [(tuple(variable.shape), str(variable.dtype)) for variable in variables]
    edges = list(accumulate(int(np.prod(shape)) for shape, _ in shapes))[:-1]

    def split(vector: jax.Array, velocities: list[jax.Array], momentum: float) -> list[jax.Array]:
        cut = zip(jnp.split(vector, edges) if shapes else [], shapes, strict=True)
        parts = [part.reshape(shape).astype(dtype) for part, (shape, dtype) in cut]
        for index, velocity in enumerate(velocities):
            parts[index] += momentum * velocity
        return parts

    return split
