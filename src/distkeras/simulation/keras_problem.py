"""A Keras model with real gradients as the problem of a simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.center import Layout
from distkeras.simulation.ahead import Ahead
from distkeras.simulation.batch_size import BatchSize
from distkeras.simulation.gradients import JaxModel, differentiable
from distkeras.simulation.partition import Partition, Rows
from distkeras.simulation.problem import Replica, TrainMany
from distkeras.simulation.vectorized import Vectorized

Array = npt.NDArray[Any]

EVALUATE_ROWS = 2048
"""Rows per forward pass of an evaluation."""


class KerasProblem:
    """A Keras model that each worker trains on its share of rows, by gradient descent or a Keras optimizer.

    Worker i of N trains rows i, i + N, i + 2N ..., or a share with labels of its own, shuffled again each
    epoch; a minibatch may span two epochs. A worker that fails loses its place in the data, its optimizer's
    state and its window.

    Memory: besides the simulator's vector per worker, its velocity (for algorithms with momentum or primal
    averaging) and its optimizer's variables. On TensorFlow and PyTorch all workers use the model in turn, so
    its own weights are undefined afterwards: call `load(result.center)`.

    Args:
        model: a built Keras model; its weights are the first center.
        x: inputs, shape (rows, ...).
        y: targets, shape (rows, ...).
        loss: a Keras loss or its name.
        batch_size: rows per minibatch; 32 by default.
        global_batch_size: rows of the minibatches of all workers together, in place of `batch_size`: each of
            N workers has `global_batch_size // N` in its own.
        optimizer: a Keras optimizer or its name; `simulate` then ignores its `learning_rate`. Gradient
            descent by default. Not for algorithms with momentum of their own; primal averaging takes any that
            steps at every minibatch.
        validation: `(x, y)` for evaluations of the center; the training data by default.
        metrics: Keras metrics or their names (of the classes, in snake case: not the shorthand "accuracy"),
            computed over the validation data.
        partition: what the rows are divided by: `"rows"` for shares that are alike, `"labels"` for shares
            that differ in labels and size, see `Partition`.
        alpha: for `"labels"`, the concentration of the Dirichlet distribution: the smaller, the more the
            shares differ.
        vectorize: whether the windows of many workers are trained by one compiled call, on JAX. The data
            then stay on its device, and so does what a worker keeps between windows. TensorFlow and PyTorch
            train one window after another in any case.

    Raises:
        ValueError: the model is not built or has weights that the optimizer overwrites (float8), arrays have
            different lengths, or a number is out of range.

    Example:
        >>> problem = KerasProblem(model, x, y, loss="sparse_categorical_crossentropy",
        ...                        validation=(x_test, y_test), metrics=["sparse_categorical_accuracy"])
        >>> result = simulate(ADAG(), problem, num_workers=16, num_commits=400, learning_rate=0.1,
        ...                   evaluate_every=50)
    """

    def __init__(
        self,
        model: Any,
        x: Array,
        y: Array,
        *,
        loss: Any,
        batch_size: int | None = None,
        global_batch_size: int | None = None,
        optimizer: Any = None,
        validation: tuple[Array, Array] | None = None,
        metrics: Sequence[Any] = (),
        partition: Literal["rows", "labels"] = "rows",
        alpha: float = 1.0,
        vectorize: bool = True,
    ) -> None:
        import keras

        if not model.built:
            raise ValueError(f"Build the model first, for example with `keras.Input`. Received: {model!r}")
        overwritten = [each.path for each in model.trainable_variables if each.overwrite_with_gradient]
        if overwritten:
            raise ValueError(
                "The simulator moves each trainable weight by its gradient, and the gradients of some "
                "weights are their new values, as with float8. Simulate the model before `quantize`. "
                f"Received: {', '.join(overwritten)}"
            )
        self._x, self._y = _same_length("x", x, y)
        self._validation = _same_length("validation", *(validation or (x, y)))
        self._batch = BatchSize(batch_size, global_batch_size)
        self._partition = Partition(partition, alpha)
        self._shares: dict[int, list[Rows]] = {}
        if optimizer is not None:
            given = keras.optimizers.get(optimizer)
            optimizer = type(given).from_config(given.get_config())
        self._loss = keras.losses.get(loss)
        self._metrics = [keras.metrics.get(metric) for metric in metrics]
        self._model = differentiable(model, self._loss, optimizer)
        self._optimizer = optimizer
        self._initial, self._local, self._state = self._model.initial()
        self._vectorize = vectorize and isinstance(self._model, JaxModel)
        self._vectorized: dict[Ahead | None, Vectorized] = {}

    @property
    def initial(self) -> Vector:
        """The model's weights at the creation of this problem, shape (size,)."""
        return self._initial

    @property
    def layout(self) -> Layout:
        """The place of each weight in the vector."""
        return self._model.layout

    @property
    def num_trainable(self) -> int:
        """Number of elements of the trainable weights; statistics such as BatchNorm's follow them."""
        return self._model.layout.num_trainable

    @property
    def tensors(self) -> tuple[int, ...]:
        """Number of elements of each trainable weight, in order."""
        return self._model.layout.tensors

    def steps_per_epoch(self, num_workers: int) -> int:
        """Return the number of minibatches in a worker's share of the rows."""
        return math.ceil(len(self._x) / num_workers / self._batch.of(num_workers))

    def steps_of_share(self, worker: int, num_workers: int) -> int:
        """Return the number of minibatches in the share of one worker."""
        return math.ceil(self._share(worker, num_workers).size / self._batch.of(num_workers))

    def load(self, weights: Vector) -> None:
        """Write the weights of a center into the model."""
        self._model.load(weights)

    @property
    def train_many(self) -> TrainMany | None:
        """Train the windows of many workers by one compiled call; `None` where they are trained in turn."""
        # A subclass that trains in its own way is obeyed.
        own = type(self).train is not KerasProblem.train
        return None if own or not self._vectorize else self._train_many

    def _train_many(
        self, weights: Sequence[Vector], num_steps: Sequence[int], replicas: Sequence[Replica]
    ) -> Iterator[tuple[Vector, int]]:
        first = replicas[0]
        self._check_optimizer(first)
        vectorized = self._vectorized_for(first.ahead)
        size = self._batch.of(first.num_workers)
        batches = [
            np.reshape([self._rows(replica) for _ in range(steps)], (-1, size))
            for steps, replica in zip(num_steps, replicas, strict=True)
        ]
        ends = vectorized.train(weights, batches, replicas)
        rows = [steps * size for steps in num_steps]
        return zip(ends, rows, strict=True)

    def _vectorized_for(self, ahead: Ahead | None) -> Vectorized:
        if not isinstance(self._model, JaxModel):
            raise TypeError(f"Expected a model on JAX. Received: {self._model!r}")
        if ahead not in self._vectorized:
            on_device = [other.data for other in self._vectorized.values()]
            data = on_device[0] if on_device else (self._x, self._y)
            self._vectorized[ahead] = Vectorized(self._model, self._local, self._state, ahead, data)
        return self._vectorized[ahead]

    def train(self, weights: Vector, num_steps: int, replica: Replica) -> tuple[Vector, int]:
        """Train `num_steps` minibatches of the worker's share."""
        if self._vectorize:
            return next(self._train_many([weights], [num_steps], [replica]))
        self._check_optimizer(replica)
        split, ahead = self.num_trainable, replica.ahead
        weights = weights.copy()
        memory = replica.memory
        if ahead is not None:
            memory.setdefault("velocity", np.zeros(split, np.float32))
        local = memory.get("local", self._local)
        for _ in range(num_steps):
            rows = self._rows(replica)
            at = weights.copy()
            if ahead is not None:
                at[:split] += ahead.ahead * memory["velocity"]
            gradient, statistics, local = self._model.gradient(at, local, self._x[rows], self._y[rows])
            moved = self._moved(at[:split], gradient, replica)
            if ahead is None:
                weights[:split] = moved
            else:
                step = moved - at[:split] + ahead.carried * memory["velocity"]
                memory["velocity"] = ahead.kept * step
                weights[:split] += ahead.moved * step
            weights[split:] = statistics
        memory["local"] = local
        return weights, num_steps * self._batch.of(replica.num_workers)

    def evaluate(self, weights: Vector) -> dict[str, float]:
        """Return the loss (without regularizers) and the metrics on the validation data."""
        from keras import ops

        x, y = self._validation
        for metric in self._metrics:
            metric.reset_state()
        total = 0.0
        for low in range(0, len(x), EVALUATE_ROWS):
            batch = y[low : low + EVALUATE_ROWS]
            output = self._model.predict(weights, x[low : low + EVALUATE_ROWS])
            total += float(ops.convert_to_numpy(ops.mean(self._loss(batch, output)))) * len(batch)
            for metric in self._metrics:
                metric.update_state(batch, output)
        return {"loss": total / len(x), **{metric.name: float(metric.result()) for metric in self._metrics}}

    def _check_optimizer(self, replica: Replica) -> None:
        if self._optimizer is None:
            return
        if replica.averaging is None and replica.momentum:
            raise ValueError(
                "The algorithm adds its own Nesterov momentum: leave out the problem's `optimizer`. "
                f"Received: optimizer={self._optimizer!r}, momentum={replica.momentum}"
            )
        steps = self._optimizer.gradient_accumulation_steps
        if replica.averaging is not None and steps:
            raise ValueError(
                "The algorithm averages at every minibatch, even where the `optimizer` only accumulates "
                "gradients: raise `batch_size` instead. "
                f"Received: {type(self._optimizer).__name__} with gradient_accumulation_steps={steps!r}"
            )

    def _moved(self, trainable: Vector, gradient: Vector, replica: Replica) -> Vector:
        """Return where a step of the inner optimizer from `trainable` arrives."""
        if self._optimizer is None:
            return trainable - replica.learning_rate * gradient
        state = replica.memory.get("optimizer", self._state)
        replica.memory["optimizer"], moved = self._model.apply(state, gradient, trainable)
        return moved

    def _rows(self, replica: Replica) -> Rows:
        """Return the next minibatch of the worker's share."""
        memory, size = replica.memory, self._batch.of(replica.num_workers)
        rows: Rows = memory.get("rows", np.zeros(0, np.intp))
        while rows.size < size:
            share = self._share(replica.worker, replica.num_workers)
            rows = np.concatenate((rows, replica.rng.permutation(share)))
        memory["rows"] = rows[size:]
        return rows[:size]

    def _share(self, worker: int, num_workers: int) -> Rows:
        """Return the rows of a worker."""
        if num_workers not in self._shares:
            self._shares[num_workers] = self._partition.shares(self._y, num_workers)
        return self._shares[num_workers][worker]


def _same_length(name: str, x: Array, y: Array) -> tuple[Array, Array]:
    x, y = np.asarray(x), np.asarray(y)
    if len(x) != len(y) or not len(x):
        raise ValueError(
            f"`{name}` needs inputs and targets of the same length, at least 1. "
            f"Received: {len(x)} and {len(y)} rows"
        )
    return x, y
