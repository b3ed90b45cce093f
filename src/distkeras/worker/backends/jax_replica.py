"""The replica on JAX: all state outside the model, every step a pure function of it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, final

import jax
import jax.numpy as jnp
import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.worker.model import is_statistic, weights_of
from distkeras.worker.replica import Batch, Replica

State = tuple[list[jax.Array], list[jax.Array], list[jax.Array], list[jax.Array]]
"""Trainable, other, optimizer and metrics variables, as Keras's `train_step` takes them."""


@final
class JaxReplica(Replica):
    """Donates the state to each step, so that the weights are updated in place."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._state: State = (
            _values(model.trainable_variables),
            _values(model.non_trainable_variables),
            _values(model.optimizer.variables if model.optimizer is not None else []),
            [],
        )
        self._statistics = [
            index for index, variable in enumerate(model.non_trainable_variables) if is_statistic(variable)
        ]
        trainable, statistics = weights_of(model)
        self._flatten = jax.jit(_flatten)
        self._split = jax.jit(_splitter([*trainable, *statistics]))

    def read(self) -> Vector:
        trainable, others, _, _ = self._state
        weights = [*trainable, *(others[index] for index in self._statistics)]
        if jax.default_backend() == "cpu":
            # Here an array is a view of JAX's own memory: NumPy joins them five times as fast as XLA.
            parts = [np.asarray(weight).ravel() for weight in weights]
            return np.concatenate(parts, dtype=np.float32, casting="unsafe")
        return np.array(self._flatten(weights))

    def write(self, vector: Vector) -> None:
        # A copy that JAX owns: it may read an array in place, and later than now.
        parts = self._split(np.array(self._checked(vector), np.float32))
        trainable, others, optimizer, metrics = self._state
        count = len(trainable)
        others = list(others)
        for index, part in zip(self._statistics, parts[count:], strict=True):
            others[index] = part
        self._state = (parts[:count], others, optimizer, metrics)

    def sync(self) -> None:
        optimizer = self.model.optimizer
        variables = (
            self.model.trainable_variables,
            self.model.non_trainable_variables,
            optimizer.variables if optimizer is not None else [],
            self.model.metrics_variables if self._prepared else [],
        )
        for group, values in zip(variables, self._state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)

    def _prepare(self) -> None:
        self._state = (*self._state[:3], _values(self.model.metrics_variables))
        self._fresh_metrics = jax.jit(self._make_fresh_metrics)
        self._train_step = self._counted_step
        if self.model.jit_compile and not self.model.run_eagerly:
            self._train_step = jax.jit(self._counted_step, donate_argnums=0)

    def _counted_step(self, state: State, batch: Batch) -> tuple[dict[str, Any], State]:
        # Python runs this when JAX traces it, which is when it compiles.
        self.num_compilations += 1
        logs, state = self.model.train_step(state, batch)
        return logs, state

    def _step(self, batch: Batch) -> dict[str, Any]:
        logs, self._state = self._train_step(self._state, batch)
        return logs

    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        fetched: dict[str, Any] = jax.device_get(logs)
        return fetched

    def _reset_metrics(self) -> None:
        self._state = (*self._state[:3], self._fresh_metrics(self._state[3]))

    def _make_fresh_metrics(self, values: list[jax.Array]) -> list[jax.Array]:
        variables = self.model.metrics_variables
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            self.model.reset_metrics()
        fresh = [scope.get_current_value(variable) for variable in variables]
        return [jnp.asarray(value, old.dtype) for value, old in zip(fresh, values, strict=True)]


def _values(variables: list[keras.Variable]) -> list[jax.Array]:
    return [variable.value for variable in variables]


def _flatten(weights: list[jax.Array]) -> jax.Array:
    return jnp.concatenate([weight.astype(jnp.float32).ravel() for weight in weights])


def _splitter(variables: list[keras.Variable]) -> Callable[[jax.Array], list[jax.Array]]:
    """Return the function that cuts a vector into weights of the shapes and types of `variables`."""
    shapes = [(tuple(variable.shape), variable.dtype) for variable in variables]
    edges = list(accumulate(int(np.prod(shape)) for shape, _ in shapes))[:-1]

    def split(vector: jax.Array) -> list[jax.Array]:
        parts = jnp.split(vector, edges)
        return [part.reshape(shape).astype(dtype) for part, (shape, dtype) in zip(parts, shapes, strict=True)]

    return split
