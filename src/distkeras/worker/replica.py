"""The replica: a worker's copy of the model and its compiled training step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.model.variables import value_of
from distkeras.model.weights import cells_of, layout_of
from distkeras.worker.nesterov import nesterov_of
from distkeras.worker.step_buffer import Batch, Form, StepBuffer, form_of, leaves_of

Arrays = Any
"""An array, or a list or dict of arrays: what Keras takes as `x` or `y`."""

Sums = npt.NDArray[np.float64]

Steps = Callable[[Batch, int], dict[str, Any]]
"""Trains the first minibatches, as many as the number says, of those that lie side by side along the first
axis; returns Keras's logs of the last one, still on the device."""


class Replica(ABC):
    """A compiled Keras model that trains by Keras's own `train_step`, in a bare loop.

    The optimizer's state stays here. After a write the weights are the new ones, and the optimizer goes on
    with what it has. With `nesterov.add_momentum` the model's variables look ahead of the weights by
    `momentum * velocity`; `read` and `write` mean the weights.

    Where one call of a compiled step costs as much as a small model's arithmetic, minibatches wait until a
    few can be trained by one call, each by the same `train_step`. Whatever asks for results trains those that
    wait first.

    On JAX the weights live outside the model while it trains; `sync` brings them back.

    Args:
        model: a built and compiled model, the replica's own from now on.

    Attributes:
        layout: where each weight lies in the vector.
        num_compilations: how often `train_step` was traced: once for each shape of a minibatch on JAX and
            TensorFlow; 0 on PyTorch, whose step is eager.

    Raises:
        ValueError: the model is not compiled.
    """

    _num_buffers = 1
    """Of a backlog: more where a call returns before it has read its minibatches."""

    def __init__(self, model: keras.Model) -> None:
        if not model.compiled:
            raise ValueError(
                f"Expected a compiled model: call compile() first. Received: model={model.name!r}"
            )
        self.model = model
        self.num_compilations = 0
        self._logs: dict[str, Any] | None = None
        self._collected: list[Sums] | None = None
        self._before: list[Sums] = []
        self._prepared = False
        self._most_rows = 0
        self._joined: dict[Form, tuple[StepBuffer, Steps] | None] = {}
        self._waiting: tuple[StepBuffer, Steps] | None = None
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.layout = layout_of(model)
        self._cells = cells_of(model, self.layout)
        nesterov = nesterov_of(model)
        self._momentum = nesterov.momentum if nesterov else 0.0
        self._velocities: list[keras.Variable] = list(nesterov.velocities) if nesterov else []

    def train(self, x: Arrays, y: Arrays = None, sample_weight: Arrays = None) -> None:
        """Train one minibatch, now or later: by the next `metrics`, `read`, `write` or `sync` at the latest.

        Args:
            x: inputs, an array or a list or dict of arrays, shape (batch, ...). Like `y` and
                `sample_weight` it must not be changed before the next `read` or `metrics` returns.
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

        Empty if there was no step. A metric of several values gives each a number: `f1_0`, `f1_1`.
        """
        self._flush()
        if self._logs is None:
            return {}
        logs, self._logs = self._logs, None
        values = _named_values(self._fetch(logs))
        if self._collected is not None:
            own = self._metric_values()
            self._collected = _sums(self._collected, own)
            if self._before:
                values = self._results_of(_sums(self._before, own))
                self._before = []
        self._reset_metrics()
        loss = {"loss": values.pop("loss")} if "loss" in values else {}
        return loss | values

    def collect_metrics(self) -> None:
        """Begin the metrics anew, and from now on add up what their variables hold over every reset.

        What they hold now is added to what `metrics` returns next.
        """
        self._flush()
        self._collected = []
        if self._logs is not None:
            self._before = self._metric_values()
            self._reset_metrics()

    def collected_metrics(self) -> list[Sums]:
        """Return what the variables of the metrics held at every reset since `collect_metrics`, added up.

        That is what they hold after all these rows, for every metric of Keras.
        """
        return self._collected or []

    def read(self) -> Vector:
        """Return the weights as one new vector, shape (size,)."""
        self._flush()
        return self._read()

    def write(self, vector: Vector) -> None:
        """Set the weights from `vector`, shape (size,), which the caller may change afterwards.

        Raises:
            ValueError: it has another size.
        """
        self._flush()
        self._write(self._checked(vector))

    def sync(self) -> None:
        """Bring weights, optimizer state and metrics into `model`, where they hold until the next step."""
        self._flush()
        self._sync()

    def load(self) -> None:
        """Take weights, optimizer state and metrics from `model`, which were changed there after a `sync`."""
        self._logs = None
        self._load()

    def _results_of(self, states: list[Sums]) -> dict[str, float]:
        """Return what the metrics say where their variables hold `states`."""
        self._sync()
        for variable, state in zip(self.model.metrics_variables, states, strict=True):
            variable.assign(state.astype(str(variable.dtype)))
        return _named_values(self.model.get_metrics_result())

    def _join(self, batch: Batch) -> tuple[StepBuffer, Steps] | None:
        """Get ready for minibatches of the form of `batch`; return what collects them and trains several."""
        if not self._prepared:
            # Loss and metrics make their variables by the shapes of the data, before anything is compiled.
            self.model._symbolic_build(data_batch=symbolic(batch))
            self._prepare()
            self._prepared = True
        rows = max((len(leaf) for leaf in leaves_of(batch)), default=0)
        if rows < self._most_rows:
            return None  # The rest of a partition, once an epoch: there are no others to train it with.
        self._most_rows = rows
        steps = self._compile_steps(batch)
        return None if steps is None else (StepBuffer(batch, self._num_buffers), steps)

    def _flush(self) -> None:
        """Train what waits."""
        if self._waiting is not None and self._waiting[0].count:
            backlog, steps = self._waiting
            self._logs = steps(*backlog.take())

    @abstractmethod
    def _read(self) -> Vector:
        """Return the weights as one new vector."""

    @abstractmethod
    def _write(self, vector: Vector) -> None:
        """Set the weights from `vector`, of the right size, and keep nothing of it."""

    @abstractmethod
    def _sync(self) -> None:
        """Bring the state into `model`."""

    @abstractmethod
    def _load(self) -> None:
        """Take the state from `model`."""

    @abstractmethod
    def _prepare(self) -> None:
        """Compile, or get ready to: all variables exist now."""

    @abstractmethod
    def _compile_steps(self, batch: Batch) -> Steps | None:
        """Return what trains several minibatches of the form of `batch` by one call, where that is faster."""

    @abstractmethod
    def _step(self, batch: Batch) -> dict[str, Any]:
        """Train one minibatch; return Keras's logs, still on the device."""

    @abstractmethod
    def _fetch(self, logs: dict[str, Any]) -> dict[str, Any]:
        """Return `logs` as NumPy arrays, waiting for the step."""

    def _metric_values(self) -> list[Sums]:
        """Return what the variables of the metrics hold."""
        return [np.array(value_of(variable), np.float64) for variable in self.model.metrics_variables]

    @abstractmethod
    def _reset_metrics(self) -> None:
        """Begin the metrics anew."""

    def _checked(self, vector: Vector) -> Vector:
        if vector.shape != (self.layout.size,):
            raise ValueError(
                f"Expected a vector of shape ({self.layout.size},): the weights of {self.model.name!r}. "
                f"Received: shape={vector.shape}"
            )
        return vector


def _named_values(logs: dict[str, Any]) -> dict[str, float]:
    """Flatten `logs` to numbers: metrics may be dicts, or arrays of one value per class."""
    values: dict[str, float] = {}
    for name, log in logs.items():
        if isinstance(log, dict):
            values |= _named_values(log)
            continue
        array = keras.ops.convert_to_numpy(log)  # NumPy itself reads nothing that lies on a GPU.
        if array.size == 1:
            values[name] = float(array.reshape(()))
        else:
            values |= {f"{name}_{index}": float(value) for index, value in enumerate(array.ravel())}
    return values


def _sums(one: list[Sums], other: list[Sums]) -> list[Sums]:
    return [mine + its for mine, its in zip(one, other, strict=True)] if one else other


def symbolic(batch: Batch) -> Any:
    """Return what tells Keras the shapes and types of `batch`."""
    return keras.tree.map_structure(_described, batch)


def _described(array: Any) -> Any:
    """Return what tells Keras shape and type of `array`: it does not know texts by NumPy's type for them."""
    texts = isinstance(array, np.ndarray) and array.dtype.hasobject
    return keras.KerasTensor(array.shape, "string") if texts else array
