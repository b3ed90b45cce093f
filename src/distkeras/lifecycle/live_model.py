"""The model that callbacks see during a training: it takes the center, and tells what they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from distkeras.algorithms import Vector
from distkeras.center.layout import Layout
from distkeras.model.compiling import optimizers_in
from distkeras.model.optimizer import finalize, set_values
from distkeras.model.other_optimizers import assign_local_state
from distkeras.model.variables import tree_of, value_of
from distkeras.model.weights import initial_vector, set_vector
from distkeras.worker.evaluate import set_metric_states
from distkeras.worker.metric_states import add_states, lasting_in, named_values, packed

if TYPE_CHECKING:
    from distkeras.worker.columns import Columns
    from distkeras.worker.final_state import FinalState

Logs = dict[str, float]


class LiveModel:
    """A model on the driver whose training goes on elsewhere.

    Args:
        model: a built and compiled model; changed in place. Its optimizer is built if it is not.
        layout: the place of each shared weight in the vector.
        columns: the columns that the model is trained on.
        batch_size: rows of a minibatch.

    Attributes:
        model: the model.
    """

    def __init__(self, model: keras.Model, layout: Layout, columns: Columns, batch_size: int) -> None:
        self.model = model
        self._layout = layout
        self._columns = columns
        self._batch_size = batch_size
        self._given: Vector | None = None
        self._rate: float | None = None
        self._lasting: list[bool] | None = None
        self._earlier = b""
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)

    def vector(self) -> Vector:
        """Return the weights as one new vector, shape (size,)."""
        return initial_vector(self.model, self._layout)

    def variables(self) -> dict[str, npt.NDArray[Any]]:
        """Return the values of the variables that the center does not hold, by path."""
        shared = {segment.path for segment in self._layout.segments()}
        cells = tree_of(self.model).variables
        return {path: np.array(value_of(cell)) for path, cell in cells.items() if path not in shared}

    def take(self, center: Vector | None, own: FinalState | None) -> None:
        """Take the weights of `center` and the further state of a worker; `None` leaves them as they are.

        The learning rate stays that of the driver, which the worker may not have yet.
        """
        rate = self.rate()
        if own is not None:
            assign_local_state(self.model, own.variables)
            if own.optimizer:
                set_values(self.model.optimizer, tuple(own.optimizer))
                self.set_rate(rate)
        if center is not None:
            set_vector(self.model, center, self._layout)

    def remember(self) -> None:
        """Take the present weights and rate as those that the workers have."""
        self._given, self._rate = self.vector(), self.rate()

    def changed_weights(self) -> Vector | None:
        """Return the weights if they differ from those at the last `remember`, else `None`."""
        if self._given is None:
            return None
        now = self.vector()
        same = now.tobytes() == self._given.tobytes()  # NaN equals itself here.
        self._given = now
        return None if same else now

    def changed_rate(self) -> float | None:
        """Return the learning rate if it differs from that at the last call, else `None`."""
        now = self.rate()
        same, self._rate = now == self._rate, now
        return None if same else now

    def rate(self) -> float | None:
        """Return the optimizer's learning rate; `None` if a schedule gives it, or there is no optimizer."""
        chain = optimizers_in(self.model.optimizer)
        if not chain or not isinstance(chain[0]._learning_rate, keras.Variable):
            return None
        return float(value_of(chain[0]._learning_rate))

    def set_rate(self, rate: float | None) -> None:
        """Set the optimizer's learning rate; `None` leaves it."""
        if rate is not None:
            for each in optimizers_in(self.model.optimizer):
                if isinstance(each._learning_rate, keras.Variable):
                    each._learning_rate.assign(rate)

    def logs_of(self, states: bytes, last: Mapping[str, float] | None = None) -> Logs:
        """Return loss and metrics of an epoch, and leave the model's metrics in their states.

        Args:
            states: the metrics' states: see `distkeras.worker.metric_states`; empty for unknown ones.
            last: metrics of the epoch's last window. They are returned if the states are unknown, or if the
                model's `train_step` reports others than the model's metrics.
        """
        if not states:
            return dict(last or {})
        results = self.results_of(add_states([states, self._earlier]))
        self._remember_lasting()
        return results if not last or named_values(results).keys() == last.keys() else dict(last)

    def lasting_names(self) -> set[str]:
        """Return the names of results of metrics that do not reset, and count over all epochs.

        They are known once an epoch has been closed.
        """
        if not any(self._lasting or ()):
            return set()
        cells = self.model.metrics_variables
        before, results = [np.array(value_of(cell)) for cell in cells], []
        for mark in (0, 1):
            for cell, lasts in zip(cells, self._lasting or (), strict=True):
                cell.assign(np.full(cell.shape, mark if lasts else 0, str(cell.dtype)))
            results.append(named_values(self.model.get_metrics_result()))
        for cell, value in zip(cells, before, strict=True):
            cell.assign(value)
        return {name for name, value in results[0].items() if results[1][name] != value}

    def _remember_lasting(self) -> None:
        """Keep the states of metrics that do not reset: those of the next epoch are added to them."""
        cells = self.model.metrics_variables
        if self._lasting is None:
            lasting = {id(cell) for cell in lasting_in(self.model)}
            self._lasting = [id(cell) in lasting for cell in cells]
        if any(self._lasting):
            self._earlier = packed(
                [
                    np.array(value_of(cell), np.float64) * lasts
                    for cell, lasts in zip(cells, self._lasting, strict=True)
                ]
            )

    def results_of(self, states: bytes) -> Logs:
        """Return loss and metrics for the metrics' `states`, in which the model's metrics then are."""
        set_metric_states(self.model, self._columns, self._batch_size, states)
        return flattened(self.model.get_metrics_result())

    def finalize(self) -> None:
        """Set the weights to the values that the optimizer gives them at the end of a training."""
        if self.model.optimizer is not None:
            finalize(self.model)


def flattened(results: Mapping[str, Any]) -> Logs:
    """Return the results of metrics as numbers, as Keras's callbacks get them."""
    logs: Logs = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            logs |= flattened(value)
            continue
        array = np.asarray(keras.ops.convert_to_numpy(value))
        logs[name] = float(array.reshape(())) if array.size == 1 else array  # type: ignore[assignment]
    return logs
