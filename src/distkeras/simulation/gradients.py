"""Gradients of a Keras model at weights in a flat vector, on each backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.center import Layout

Array = npt.NDArray[Any]
Arrays = list[Array]
Loss = Callable[[Any, Any], Any]


class Differentiable(ABC):
    """A Keras model as functions of flat vectors. Integer weights (seeds, counters) are passed as `local`.

    Args:
        model: a built Keras model.
        loss: `loss(y, prediction)`, a Keras loss.
        optimizer: a Keras optimizer for this model only, or `None`.
    """

    def __init__(self, model: Any, loss: Loss, optimizer: Any = None) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        floating = [_is_float(variable) for variable in model.non_trainable_variables]
        self.trainable = list(model.trainable_variables)
        self.statistics = _where(model.non_trainable_variables, floating)
        self.local = _where(model.non_trainable_variables, [not flag for flag in floating])
        self._floating = floating
        self.layout = Layout(
            tuple((variable.path, tuple(variable.shape)) for variable in self.trainable),
            tuple((variable.path, tuple(variable.shape)) for variable in self.statistics),
        )
        if optimizer is not None:
            optimizer.build(self.trainable)

    def initial(self) -> tuple[Vector, Arrays, Arrays]:
        """Return the model's weights, its local variables, and the optimizer's variables."""
        from keras import ops

        weights = [ops.convert_to_numpy(variable.value) for variable in (*self.trainable, *self.statistics)]
        kept = [] if self.optimizer is None else self.optimizer.variables
        local, state = (
            [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]
            for variables in (self.local, kept)
        )
        return self.layout.pack(weights), local, state

    def load(self, weights: Vector) -> None:
        """Write `weights` into the model."""
        variables = (*self.trainable, *self.statistics)
        for variable, value in zip(variables, self.layout.unpack(weights), strict=True):
            variable.assign(value)

    @abstractmethod
    def gradient(self, weights: Vector, local: Arrays, x: Array, y: Array) -> tuple[Vector, Vector, Arrays]:
        """Return the gradient of the trainable part, the new statistics and the new local variables."""

    @abstractmethod
    def predict(self, weights: Vector, x: Array) -> Any:
        """Return the model's output at inference."""

    @abstractmethod
    def apply(self, state: Arrays, gradient: Vector, trainable: Vector) -> tuple[Arrays, Vector]:
        """Take one step of the Keras optimizer with `state`; return its new state and the new weights."""

    def _split(self, flat: Any) -> list[Any]:
        """Cut the trainable part of a flat array (of any backend) into arrays of the weights' shapes."""
        segments = list(self.layout.segments())[: len(self.trainable)]
        return [flat[segment.elements].reshape(segment.shape) for segment in segments]


class JaxModel(Differentiable):
    """Compiled pure functions that do not change the model's own variables."""

    def __init__(self, model: Any, loss: Loss, optimizer: Any = None) -> None:
        import jax

        super().__init__(model, loss, optimizer)
        self._gradient = jax.jit(jax.grad(self._objective, has_aux=True))
        self._predict = jax.jit(self._output)
        self._apply = jax.jit(self._step)

    def _variables(self, weights: Any, local: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        segments = list(self.layout.segments())[len(self.trainable) :]
        pieces = [weights[segment.elements].reshape(segment.shape) for segment in segments]
        return self._split(weights), self._merged(pieces, local)

    def _merged(self, statistics: Sequence[Any], local: Sequence[Any]) -> list[Any]:
        """Return the variables that are not trained, in the model's order."""
        pieces, others = iter(statistics), iter(local)
        return [next(pieces if floating else others) for floating in self._floating]

    def objective(self, trainable: Any, statistics: Any, local: Any, x: Any, y: Any) -> Any:
        """Return the loss, the new statistics and the new local variables: a pure function of lists."""
        from jax import numpy as jnp

        output, others, losses = self.model.stateless_call(
            trainable, self._merged(statistics, local), x, training=True, return_losses=True
        )
        statistics = _where(others, self._floating)
        local = _where(others, [not floating for floating in self._floating])
        return jnp.mean(self.loss(y, output)) + sum(losses), (statistics, local)

    def _objective(self, trainable: Any, statistics: Any, local: Any, x: Any, y: Any) -> Any:
        from jax import numpy as jnp

        split, others = self._variables(jnp.concatenate((trainable, statistics)), local)
        loss, (statistics, local) = self.objective(split, _where(others, self._floating), local, x, y)
        flat = [value.ravel() for value in statistics]
        return loss, (jnp.concatenate(flat) if flat else jnp.zeros(0), local)

    def _output(self, weights: Any, local: Any, x: Any) -> Any:
        return self.model.stateless_call(*self._variables(weights, local), x, training=False)[0]

    def _step(self, state: Any, gradient: Any, trainable: Any) -> Any:
        from jax import numpy as jnp

        new, state = self.optimizer.stateless_apply(state, self._split(gradient), self._split(trainable))
        return state, jnp.concatenate([value.ravel() for value in new])

    def gradient(self, weights: Vector, local: Arrays, x: Array, y: Array) -> tuple[Vector, Vector, Arrays]:
        """Return the gradient, the statistics and the local variables."""
        split = self.layout.num_trainable
        gradient, (statistics, local) = self._gradient(weights[:split], weights[split:], local, x, y)
        return np.asarray(gradient), np.asarray(statistics), local

    def predict(self, weights: Vector, x: Array) -> Any:
        """Return the model's output at inference."""
        return self._predict(weights, [variable.value for variable in self.local], x)

    def apply(self, state: Arrays, gradient: Vector, trainable: Vector) -> tuple[Arrays, Vector]:
        """Take one step of the Keras optimizer."""
        state, new = self._apply(state, gradient, trainable)
        return state, np.asarray(new)


class EagerModel(Differentiable):
    """TensorFlow and PyTorch: weights are written into the model, which all workers use in turn."""

    @abstractmethod
    def _flat_gradient(self, x: Array, y: Array) -> Vector:
        """Return the gradient at the model's variables."""

    def gradient(self, weights: Vector, local: Arrays, x: Array, y: Array) -> tuple[Vector, Vector, Arrays]:
        """Return the gradient, the statistics and the local variables."""
        from keras import ops

        self.load(weights)
        for variable, value in zip(self.local, local, strict=True):
            variable.assign(value)
        gradient = self._flat_gradient(x, y)
        read = partial(map, lambda variable: np.array(ops.convert_to_numpy(variable.value)))
        statistics = [value.ravel() for value in read(self.statistics)]
        flat = np.concatenate(statistics) if statistics else np.zeros(0, np.float32)
        return gradient, flat, list(read(self.local))

    def predict(self, weights: Vector, x: Array) -> Any:
        """Return the model's output at inference."""
        self.load(weights)
        return self.model(x, training=False)

    def apply(self, state: Arrays, gradient: Vector, trainable: Vector) -> tuple[Arrays, Vector]:
        """Take one step of the Keras optimizer."""
        from keras import ops

        variables = self.optimizer.variables
        for variable, value in zip(
            (*variables, *self.trainable), (*state, *self._split(trainable)), strict=True
        ):
            variable.assign(value)
        self.optimizer.apply([ops.convert_to_tensor(part) for part in self._split(gradient)], self.trainable)
        kept = [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]
        return kept, np.concatenate(
            [np.ravel(ops.convert_to_numpy(variable.value)) for variable in self.trainable]
        )

    def _objective(self, x: Any, y: Any) -> Any:
        from keras import ops

        return ops.mean(self.loss(y, self.model(x, training=True))) + sum(self.model.losses)


class TensorFlowModel(EagerModel):
    """Gradients by a compiled tape."""

    def __init__(self, model: Any, loss: Loss, optimizer: Any = None) -> None:
        import tensorflow as tf

        super().__init__(model, loss, optimizer)
        self._compiled = tf.function(self._taped, reduce_retracing=True)

    def _taped(self, x: Any, y: Any) -> Any:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = self._objective(x, y)
        sources = [variable.value for variable in self.trainable]
        gradients = tape.gradient(value, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)

    def _flat_gradient(self, x: Array, y: Array) -> Vector:
        flat: Vector = self._compiled(x, y).numpy()
        return flat


class TorchModel(EagerModel):
    """Gradients by eager autograd."""

    def _flat_gradient(self, x: Array, y: Array) -> Vector:
        import torch

        sources = [variable.value for variable in self.trainable]
        gradients = torch.autograd.grad(self._objective(x, y), sources, materialize_grads=True)
        flat: Vector = torch.cat([gradient.reshape(-1) for gradient in gradients]).cpu().numpy()
        return flat

    def predict(self, weights: Vector, x: Array) -> Any:
        """Return the model's output at inference."""
        import torch

        with torch.no_grad():
            return super().predict(weights, x)


def differentiable(model: Any, loss: Loss, optimizer: Any = None) -> Differentiable:
    """Return `model` as functions of flat vectors, on Keras's backend.

    Raises:
        ValueError: the backend is not JAX, TensorFlow or PyTorch.
    """
    import keras

    kinds: dict[str, type[Differentiable]] = {
        "jax": JaxModel,
        "tensorflow": TensorFlowModel,
        "torch": TorchModel,
    }
    backend = keras.backend.backend()
    if backend not in kinds:
        raise ValueError(f"Expected one of the backends {', '.join(kinds)}. Received: {backend!r}")
    return kinds[backend](model, loss, optimizer)


def _is_float(variable: Any) -> bool:
    return "float" in variable.dtype


def _where(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    return [value for value, flag in zip(values, flags, strict=True) if flag]
