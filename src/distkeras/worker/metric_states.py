"""The states of Keras's metrics as bytes: they add up over windows, workers and partitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from distkeras.worker.compilable import compilable

if TYPE_CHECKING:
    import keras

    from distkeras.worker.minibatch import Minibatch

Sums = npt.NDArray[np.float64]
"""Values of one variable of a metric, in its shape."""

_MARK = 3
"""A value to which no metric resets its variables."""

_WIRE = np.dtype("<f8")


def packed(states: Sequence[Sums]) -> bytes:
    """Return the values of all variables of the metrics as little-endian float64, one after the other."""
    return np.concatenate([*(np.ravel(state) for state in states), np.empty(0)]).astype(_WIRE).tobytes()


def add_states(states: Iterable[bytes]) -> bytes:
    """Return the sum of states of the same metrics; empty ones are of no rows.

    Raises:
        ValueError: they are of different metrics.
    """
    sums: Sums | None = None
    for each in states:
        if each:
            values = _values_of(each)
            if sums is not None and sums.shape != values.shape:
                raise ValueError(
                    "Expected states of the same metrics. "
                    f"Received: states of {sums.size} and of {values.size} numbers"
                )
            sums = values if sums is None else sums + values
    return b"" if sums is None else sums.astype(_WIRE).tobytes()


def states_over(
    model: keras.Model,
    minibatches: Iterable[Minibatch],
    seen: Callable[[list[Sums], dict[str, Any]], None] = lambda states, logs: None,
) -> list[Sums]:
    """Return the values of the variables of the metrics over `minibatches`, by the model's own `test_step`.

    They are added up in float64. The metrics of `model` are then those of the last minibatch.

    Args:
        model: the model.
        minibatches: the minibatches.
        seen: receives the values and the logs of each minibatch alone.
    """
    from distkeras.model.variables import value_of  # Not above: windows carry states without Keras, too.

    sums: list[Sums] = []
    lasting = lasting_in(model)
    with testing(model):
        for number, minibatch in enumerate(minibatches):
            if number == 1:  # The first minibatch may have made the metrics.
                lasting = lasting_in(model)
            empty_metrics(model, lasting)  # Newer versions of Keras reset in `test_on_batch`, too.
            batch = compilable(model, (minibatch.x, minibatch.y, minibatch.sample_weight))
            logs = model.test_on_batch(*batch, return_dict=True)
            own = [np.array(value_of(variable), np.float64) for variable in model.metrics_variables]
            seen(own, logs)
            sums = [one + other for one, other in zip(sums, own, strict=True)] if sums else own
    return sums


def lasting_in(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of metrics that `reset_metrics` leaves as they are: they count over all epochs.

    Metrics that do not exist yet, as before the first minibatch, are not among them.
    """
    from distkeras.model.variables import value_of

    variables = model.metrics_variables
    before = [np.array(value_of(variable)) for variable in variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(np.full_like(value, _MARK))
    model.reset_metrics()
    marked = [bool((np.array(value_of(variable)) == _MARK).all()) for variable in variables]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return [variable for variable, found in zip(variables, marked, strict=True) if found]


def empty_metrics(model: keras.Model, lasting: Iterable[keras.Variable]) -> None:
    """Reset the metrics of `model`, also those that do not reset by themselves: states add up from zero."""
    model.reset_metrics()
    for variable in lasting:
        variable.assign(np.zeros(variable.shape, str(variable.dtype)))


@contextmanager
def testing(model: keras.Model) -> Iterator[None]:
    """Put PyTorch modules inside `model` in the mode for tests, as `evaluate` does; then back."""
    import keras

    if keras.backend.backend() != "torch":
        yield
        return
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def named_values(logs: Mapping[str, Any]) -> dict[str, float]:
    """Flatten `logs` to numbers: metrics may be dicts, or arrays of one value per class."""
    import keras

    values: dict[str, float] = {}
    for name, log in logs.items():
        if isinstance(log, Mapping):
            values |= named_values(log)
            continue
        array = keras.ops.convert_to_numpy(log)  # NumPy itself cannot read arrays on a GPU.
        if array.size == 1:
            values[name] = float(array.reshape(()))
        else:
            values |= {f"{name}_{index}": float(value) for index, value in enumerate(array.ravel())}
    return values


def assign_states(model: keras.Model, states: bytes) -> None:
    """Set the variables of the metrics of `model`, which exist, to `states`.

    Raises:
        ValueError: the states are of other metrics.
    """
    variables, values = model.metrics_variables, _values_of(states)
    sizes = [int(np.prod(variable.shape)) for variable in variables]
    if sum(sizes) != values.size:
        raise ValueError(
            f"Expected states of {sum(sizes)} numbers: the metrics of {model.name!r}. Received: {values.size}"
        )
    for variable, part in zip(
        variables, np.split(values, np.cumsum(sizes)[:-1]) if sizes else [], strict=True
    ):
        variable.assign(part.reshape(variable.shape).astype(str(variable.dtype)))


def _values_of(states: bytes) -> Any:
    if len(states) % _WIRE.itemsize:
        raise ValueError(f"Expected numbers of 8 bytes each. Received: {len(states)} bytes")
    return np.frombuffer(states, _WIRE).astype(np.float64)
