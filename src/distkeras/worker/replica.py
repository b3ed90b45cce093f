"""The replica: a worker's copy of the model and its compiled training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.model.constraints import constrained
from distkeras.model.variables import value_of
from distkeras.model.weights import cells_of, layout_of, set_vector
from distkeras.worker.ahead import ahead_of
from distkeras.worker.device import Device
from distkeras.worker.metric_states import Sums, empty_metrics, lasting_in, named_values, states_over
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.step_buffer import Batch, Form, StepBuffer, form_of, leaves_of

Arrays = Any
"""An array, or a list or dict of arrays: what Keras takes as `x` or `y`."""

Steps = Callable[[Batch, int], dict[str, Any]]
"""Trains the first minibatches of a buffer, stacked along the first axis; the number says how many. Returns
Keras's logs of the last one, still on the device."""


class Replica(ABC):
    """A compiled Keras model that trains by Keras's own `train_step`, in a bare loop.

    The optimizer's state stays in the replica: `write` replaces only the weights. With `add_momentum` or
    `add_averaging` the model's variables are ahead of the weights by `momentum * velocity`; `read` and
    `write` use the weights.

    If a call of a compiled step costs as much as a small model's arithmetic, minibatches wait until one call
    can train several of them, each by the same `train_step`. Any request for results trains the waiting
    minibatches first.

    On JAX the weights live outside the model during training; `sync` copies them back.

    Args:
        model: a built and compiled model, owned by the replica from now on.

    Attributes:
        layout: the place of each weight in the vector.
        device: where minibatches may be put ahead of their step; `None` where a step reads NumPy arrays in
            place.
        num_compilations: how often `train_step` was traced: once for each shape of a minibatch on JAX and
            TensorFlow; 0 on PyTorch, whose step is eager.

    Raises:
        ValueError: the model is not compiled.
    """

    _num_buffers = 1
    """Buffers of a backlog: more than one if a call returns before it has read its minibatches."""

    def __init__(self, model: keras.Model) -> None:
        if not model.compiled:
            raise ValueError(
                f"Expected a compiled model: call compile() first. Received: model={model.name!r}"
            )
        self.model = model
        self.device: Device | None = None
        self.num_compilations = 0
        self._logs: dict[str, Any] | None = None
        self._collected: list[Sums] | None = None
        self._before: list[Sums] = []
        self._lasting: list[keras.Variable] = []
        self._prepared = False
        self._most_rows = 0
        self._joined: dict[Form, tuple[StepBuffer, Steps] | None] = {}
        self._waiting: tuple[StepBuffer, Steps] | None = None
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.layout = layout_of(model)
        self._cells = cells_of(model, self.layout)
        ahead = ahead_of(model)
        self._momentum = ahead.momentum if ahead else 0.0
        self._velocities: list[keras.Variable] = list(ahead.velocities) if ahead else []

    def train(self, x: Arrays, y: Arrays = None, sample_weight: Arrays = None) -> None:
        """Train one minibatch, now or later: at the latest by the next `metrics`, `read`, `write` or `sync`.

        Args:
            x: inputs, an array or a list or dict of arrays, shape (batch, ...). Like `y` and
                `sample_weight` it must not be changed before the next `read` or `metrics` returns. They may
                be what `device` has put.
            y: targets.
            sample_weight: weight of each row, shape (batch,).
        """
        batch = (x, y, sample_weight)
        form = form_of(batch)
        if form not in self._joined:
            self._joined[form] = self._join(batch)
        joined = self._joined[form]
        if joined is not self._waiting:
            self._flush()
            self._waiting = joined
        if joined is None:
            self._logs = self._step(batch)
            return
        backlog, _ = joined
        backlog.add(batch)
        if backlog.count == backlog.capacity:
            self._flush()

    def metrics(self) -> dict[str, float]:
        """Return every metric over the steps since the last call, `loss` first, and reset them.

        Empty if there was no step. A metric with several values gives one number each: `f1_0`, `f1_1`.
        """
        return self.metrics_and_states(states=False)[0]

    def metrics_and_states(self, states: bool = True) -> tuple[dict[str, float], list[Sums]]:
        """Return the same as `metrics`, and the values of the variables of the metrics before the reset.

        Args:
            states: whether the values of the variables are needed; otherwise they may be missing.
        """
        self._flush()
        if self._logs is None:
            return {}, []
        logs, self._logs = self._logs, None
        values = named_values(self._fetch(logs))
        if not states and self._collected is None:
            self._reset_metrics()
            return _loss_first(values), []
        own = self._take_metrics()
        if self._collected is not None:
            self._collected = _sums(self._collected, own)
            if self._before:
                own, self._before = _sums(self._before, own), []
                values = self._results_of(own)
                self._reset_metrics()
        return _loss_first(values), own

    def collect_metrics(self, before: Sequence[Sums] = ()) -> None:
        """Reset the metrics, and from now on sum the values of their variables over all resets.

        The next result of `metrics` includes their values from before this call.

        Args:
            before: sums to go on from: those of a predecessor.
        """
        self._flush()
        self._collected = [np.array(each, np.float64) for each in before]
        if self._logs is not None:
            self._before = self._take_metrics()

    def forget(self) -> None:
        """Forget the minibatches that wait, and the metrics since their last reset: the window is dropped."""
        if self._waiting is not None:
            self._waiting[0].clear()
        self._before = []
        if self._logs is not None:
            self._logs = None
            self._reset_metrics()

    def collected_metrics(self) -> list[Sums]:
        """Return the sums of the metric variables at every reset since `collect_metrics`.

        For every Keras metric these are the values after all these rows.
        """
        return self._collected or []

    def evaluate(self, vector: Vector, minibatches: Iterable[Minibatch]) -> list[Sums]:
        """Return the values of the variables of the metrics over `minibatches`, at other weights.

        Keras's own `test_step` computes them. The training goes on as if there had been no evaluation.

        Args:
            vector: the weights, shape (size,).
            minibatches: the rows.
        """
        self.sync()
        cells = {id(cell): cell for cell in (*self.model.variables, *self._cells)}
        before = {key: np.array(value_of(cell)) for key, cell in cells.items()}
        try:
            set_vector(self.model, self._checked(vector), self.layout)
            return states_over(self.model, minibatches)
        finally:
            for key, cell in cells.items():
                cell.assign(before[key])
            self.empty_metrics()
            self.load()

    def read(self) -> Vector:
        """Return the weights as one new vector, shape (size,)."""
        self._flush()
        return self._read()

    def write(self, vector: Vector) -> None:
        """Set the weights from `vector`, shape (size,), which the caller may change afterwards.

        Raises:
            ValueError: the vector has another size.
        """
        self._flush()
        self._write(self._checked(vector))

    def adopt(self, vector: Vector) -> None:
        """Set the weights from what an exchange gave: as `write`, but the constraints of the weights hold.

        `write` is for the beginning: the user's weights need not fulfil them before the first step.
        """
        self.write(constrained(self._checked(vector), self.layout, self._cells))

    def sync(self) -> None:
        """Copy weights, optimizer state and metrics into `model`; they are valid until the next step."""
        self._flush()
        self._sync()

    def load(self) -> None:
        """Read weights, optimizer state and metrics from `model`, which were changed there after a `sync`."""
        self._logs = None
        self._load()

    def empty_metrics(self) -> None:
        """Reset the metrics of `model`: windows have the states of their own rows, which add up."""
        empty_metrics(self.model, self._lasting)

    def _results_of(self, states: list[Sums]) -> dict[str, float]:
        """Return the results of the metrics if their variables have the values `states`."""
        self._sync()
        for variable, state in zip(self.model.metrics_variables, states, strict=True):
            variable.assign(state.astype(str(variable.dtype)))
        return named_values(self.model.get_metrics_result())

    def _join(self, batch: Batch) -> tuple[StepBuffer, Steps] | None:
        """Prepare for minibatches of the form of `batch`; return a buffer and a function to train them."""
        if not self._prepared:
            # Loss and metrics create their variables by the shapes of the data, before any compilation.
            self.model._symbolic_build(data_batch=symbolic(batch))
            self._lasting = lasting_in(self.model)
            self._prepare()
            self._prepared = True
        rows = max((len(leaf) for leaf in leaves_of(batch)), default=0)
        if rows < self._most_rows:
            return None  # The last minibatch of an epoch is alone: no others of its form can join it.
        self._most_rows = rows
        if self.device is not None:
            return None  # Calls return before their steps end: the next one is waiting when they do.
        steps = self._compile_steps(batch)
        return None if steps is None else (StepBuffer(batch, self._num_buffers), steps)

    def _flush(self) -> None:
        """Train the waiting minibatches."""
        if self._waiting is not None and self._waiting[0].count:
            backlog, steps = self._waiting
            self._logs = steps(*backlog.take())

    @abstractmethod
    def _read(self) -> Vector:
        """Return the weights as one new vector."""

    @abstractmethod
    def _write(self, vector: Vector) -> None:
        """Set the weights from `vector`, which has the right size, without keeping a reference to it."""

    @abstractmethod
    def _sync(self) -> None:
        """Copy the state into `model`."""

    @abstractmethod
    def _load(self) -> None:
        """Read the state from `model`."""

    @abstractmethod
    def _prepare(self) -> None:
        """Compile, or prepare to compile: all variables exist at this point."""

    @abstractmethod
    def _compile_steps(self, batch: Batch) -> Steps | None:
        """Return a function that trains several minibatches of this form per call, or None if not faster."""

    @abstractmethod
    def _step(self, batch: Batch) -> dict[str, Any]:
        """Train one minibatch; return Keras's logs, still on the device."""

    @abstractmethod
    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return `logs` as NumPy arrays, waiting for the step."""

    @abstractmethod
    def _reset_metrics(self) -> None:
        """Reset the metrics."""

    @abstractmethod
    def _take_metrics(self) -> list[Sums]:
        """Return the values of the variables of the metrics, and reset them."""

    def _checked(self, vector: Vector) -> Vector:
        if vector.shape != (self.layout.size,):
            raise ValueError(
                f"Expected a vector of shape ({self.layout.size},): the weights of {self.model.name!r}. "
                f"Received: shape={vector.shape}"
            )
        return vector


def _loss_first(values: dict[str, float]) -> dict[str, float]:
    loss = {"loss": values.pop("loss")} if "loss" in values else {}
    return loss | values


def _sums(one: list[Sums], other: list[Sums]) -> list[Sums]:
    return [mine + its for mine, its in zip(one, other, strict=True)] if one else other


def symbolic(batch: Batch) -> Any:
    """Return symbolic tensors with the shapes and types of `batch`, for Keras."""
    return keras.tree.map_structure(_described, batch)


def _described(array: Any) -> Any:
    """Return `array`, or a symbolic tensor for strings: Keras does not know NumPy's type for them."""
    texts = isinstance(array, np.ndarray) and array.dtype.hasobject
    return keras.KerasTensor(array.shape, "string") if texts else array
