"""The replica that a Python worker keeps for its next training of the same model: compiled already."""

from __future__ import annotations

import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
import keras
import numpy as np
import numpy.typing as npt

from distkeras.model.archive import digest_of
from distkeras.model.compiling import Copied
from distkeras.model.custom_objects import is_of_keras
from distkeras.model.spec import ModelSpec, reseed, restore_seeds, thaw, weights_of
from distkeras.worker.memory import release_freed_memory
from distkeras.worker.nesterov import add_momentum
from distkeras.worker.replica import Replica, make_replica

Key = tuple[str, float]


@dataclass(frozen=True)
class Kept:
    """A replica, and what it began with besides seeds, metrics and the weights that come from the center."""

    key: Key
    replica: Replica
    beginning: list[tuple[keras.Variable, npt.NDArray[Any]]]

    def begin_anew(self, spec: ModelSpec, worker: int) -> None:
        """Put all but the center's weights back to where a new replica has them."""
        self.replica.sync()
        model = self.replica.model
        for variable, value in self.beginning:
            variable.assign(np.broadcast_to(value, variable.shape))
        restore_seeds(model, spec)
        _reseed(model, worker)
        model.reset_metrics()
        self.replica.load()


_kept: list[Kept] = []  # At most one: a second would take as much memory again.
_made: list[Key] = []
_torch_seed: list[int] = []


@contextmanager
def borrowed(spec: ModelSpec, worker: int, momentum: float) -> Iterator[Replica]:
    """Give a replica as a new process would make it, its weights zero or old: the center has them.

    It is the one that was kept, if that is of the same model and settings; else Keras begins anew. It is kept
    for the next training in this process if the block ends without an exception, and if no code of the
    user's own is in it, which may hold a state that nobody else knows of.

    Args:
        spec: the model.
        worker: index of the worker, which decides over its seeds.
        momentum: Nesterov momentum of the rule, 0 for none.
    """
    key = (digest_of(spec.archive, spec.settings, repr(spec.seeds).encode()), momentum)
    kept = _kept.pop() if _kept else None
    if kept is not None and kept.key == key:
        kept.begin_anew(spec, worker)
    else:
        kept = None  # Its memory is free before the next one takes its own.
        kept = _make(key, spec, worker, momentum)
    yield kept.replica
    if not cloudpickle.loads(spec.custom_objects) and _is_of_keras(cloudpickle.loads(spec.settings)):
        _kept.append(kept)


def _make(key: Key, spec: ModelSpec, worker: int, momentum: float) -> Kept:
    if _made:
        keras.utils.clear_session()  # A quarter of a second, for nothing in a new process.
        release_freed_memory()
    _made.append(key)
    model = thaw(spec, blank=True)
    _reseed(model, worker)
    add_momentum(model, momentum)
    replica = make_replica(model)
    weights = {id(weight) for group in weights_of(model) for weight in group}
    others = [weight for weight in model.weights if id(weight) not in weights]
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    return Kept(key, replica, [(variable, _compact(variable)) for variable in (*others, *optimizer)])


def _reseed(model: keras.Model, worker: int) -> None:
    if keras.backend.backend() == "torch":
        import torch

        # Its generator goes on from one training to the next, and begins alike in every process.
        if not _torch_seed:
            _torch_seed.append(torch.initial_seed())
        torch.manual_seed(_torch_seed[0])
    reseed(model, worker)


def _compact(variable: keras.Variable) -> npt.NDArray[Any]:
    """Return the value, as one number if it is all alike: most of an optimizer's state begins with zeros."""
    value: npt.NDArray[Any] = np.array(keras.ops.convert_to_numpy(variable))
    return value.ravel()[0] if value.size and (value == value.ravel()[0]).all() else value


def _is_of_keras(setting: Any) -> bool:
    """Whether no code but Keras's own is in an argument of `compile`."""
    match setting:
        case dict():
            return all(_is_of_keras(part) for part in setting.values())
        case list() | tuple():
            return all(_is_of_keras(part) for part in setting)
        case Copied(cls, attributes):
            return is_of_keras(cls) and _is_of_keras(attributes)
        case types.FunctionType():
            return is_of_keras(setting)
    return True
