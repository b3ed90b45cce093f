"""The state of Keras's callbacks between two epochs, as JSON and arrays, and back."""

from __future__ import annotations

import copy
import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import keras
import numpy as np

from distkeras.model.kinds import is_of_keras
from distkeras.runs.packing import NotPlain, pack

_BATCHES = ("_batches_seen_since_last_saving", "_last_batch_seen")
_STATES: dict[str, tuple[str, ...]] = {
    "BackupAndRestore": ("_current_epoch", *_BATCHES),
    "CSVLogger": (),
    "EarlyStopping": ("wait", "best", "best_epoch", "best_weights", "stopped_epoch"),
    "History": (),
    "LambdaCallback": (),
    "LearningRateScheduler": (),
    "ModelCheckpoint": ("best", *_BATCHES),
    "OrbaxCheckpoint": ("best", "_total_batches_seen", *_BATCHES),
    "ProgbarLogger": (),
    "ReduceLROnPlateau": ("wait", "best", "cooldown_counter"),
    "RemoteMonitor": (),
    "SwapEMAWeights": ("_ema_weights_in_model",),
    "TensorBoard": ("_global_train_batch", "_global_test_batch", "_previous_epoch_iterations"),
    "TerminateOnNaN": (),
}
"""The attributes of Keras's own callbacks that are state, by class. The others are arguments, or follow."""


class CallbackStates:
    """Reads and sets the states of the callbacks of one training.

    - Keras's own callbacks: their counters and best values.
    - A callback with `get_state()` and `set_state(state)`: what these return and take.
    - Any other: those attributes of numbers, texts, arrays, and lists and dicts of them that have changed
      since the training began. So an argument that a resumed training changes keeps its new value.

    Args:
        callbacks: the callbacks, before `on_train_begin`.
    """

    def __init__(self, callbacks: Iterable[keras.callbacks.Callback]) -> None:
        self._callbacks = list(callbacks)
        self._before = [copy.deepcopy(_own_attributes(callback)) for callback in self._callbacks]

    def get(self) -> list[list[Any]]:
        """Return class and state of each callback, for `Run.epoch`.

        Raises:
            TypeError: a `get_state()` returned something other than JSON and arrays.
        """
        pairs = zip(self._callbacks, self._before, strict=True)
        return [[type(callback).__name__, self._state_of(callback, before)] for callback, before in pairs]

    def before_training(self, states: Sequence[Sequence[Any]], epochs: int) -> None:
        """Prepare callbacks that begin anew in `on_train_begin`: call it before that method.

        `CSVLogger` keeps the rows of the first `epochs` epochs, and appends to them.

        Args:
            states: what `get` returned.
            epochs: whole epochs that the training has behind it.
        """
        for callback, _ in self._matched(states):
            if isinstance(callback, keras.callbacks.CSVLogger):
                _cut(callback, epochs)
                callback.append = True

    def set(self, states: Sequence[Sequence[Any]]) -> list[str]:
        """Set the states, after `on_train_begin`, which resets most callbacks.

        A state belongs to the callback of the same class at the same place among those of its class.

        Args:
            states: what `get` returned.

        Returns:
            What does not fit: callbacks without a state, and states without a callback, in words.
        """
        matched = self._matched(states)
        for callback, state in matched:
            if callable(getattr(callback, "set_state", None)):
                callback.set_state(state)
                continue
            for name, value in state.items():
                setattr(callback, name, value)
        have = [type(callback).__name__ for callback in self._callbacks]
        known = [name for name, _ in states]
        new = [f"{name} starts anew: the run has no state for it" for name in _more(have, known)]
        return new + [
            f"the state of {name} is not used: there is no such callback" for name in _more(known, have)
        ]

    def _matched(self, states: Sequence[Sequence[Any]]) -> list[tuple[Any, Mapping[str, Any]]]:
        left = list(states)
        found = []
        for callback in self._callbacks:
            mine = next((pair for pair in left if pair[0] == type(callback).__name__), None)
            if mine is not None:
                left.remove(mine)
                found.append((callback, mine[1]))
        return found

    def _state_of(self, callback: Any, before: Mapping[str, Any]) -> dict[str, Any]:
        if callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None)):
            return _checked(callback, callback.get_state())
        own = _own_attributes(callback)
        changed = {
            name: value
            for name, value in own.items()
            if name not in before or not _equal(before[name], value)
        }
        stock = {
            name: getattr(callback, name)
            for cls in type(callback).__mro__
            if is_of_keras(cls)
            for name in _STATES.get(cls.__name__, ())
            if hasattr(callback, name)
        }
        return changed | {name: _number(value) for name, value in stock.items()}


def _more(names: list[str], others: list[str]) -> list[str]:
    """Return those of `names` that are more often there than in `others`."""
    left = list(others)
    return [name for name in names if name not in left or left.remove(name)]  # type: ignore[func-returns-value]


def _own_attributes(callback: Any) -> dict[str, Any]:
    """Return the plain attributes of a callback that Keras's classes do not define."""
    keras_own = {"params", "_model"}
    for cls in type(callback).__mro__:
        if is_of_keras(cls):
            for method in vars(cls).values():
                if isinstance(method, FunctionType):
                    keras_own |= set(method.__code__.co_names)
    found = {}
    for name, value in getattr(callback, "__dict__", {}).items():
        if name not in keras_own:
            try:
                pack(value, lambda arrays: "")
            except NotPlain:
                continue
            found[name] = value
    return found


def _checked(callback: Any, state: Any) -> dict[str, Any]:
    try:
        pack(state, lambda arrays: "")
    except NotPlain as error:
        raise TypeError(f"`{type(callback).__name__}.get_state()`: {error}") from error
    if not isinstance(state, dict):
        raise TypeError(
            f"`{type(callback).__name__}.get_state()` must return a dict. Received: {type(state)}"
        )
    return state


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and bool(np.array_equal(one, other))
    if isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        return all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    return type(one) is type(other) and bool(one == other)


def _number(value: Any) -> Any:
    """Return a number of a backend as Python's; anything else as it is."""
    if value is None or isinstance(value, str | bool | int | float | list):
        return value
    return keras.ops.convert_to_numpy(value).item() if np.ndim(value) == 0 else value


def _cut(logger: keras.callbacks.CSVLogger, epochs: int) -> None:
    """Remove the rows of epochs from `epochs` on from the file of a CSVLogger, if it is there."""
    if not os.path.exists(logger.filename):
        return
    with open(logger.filename, newline="") as file:
        rows = list(csv.reader(file, delimiter=logger.sep))
    kept = [row for row in rows if row and not (row[0].isdigit() and int(row[0]) >= epochs)]
    with open(logger.filename, "w", newline="") as file:
        csv.writer(file, delimiter=logger.sep).writerows(kept)
