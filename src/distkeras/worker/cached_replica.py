"""The replica that a Python worker keeps for its next training of the same model: compiled already."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cloudpickle
import keras
import numpy as np

from distkeras.model.archive import digest_of_all
from distkeras.model.compiling import Compiled, CopiedByValue, Pickled
from distkeras.model.custom_objects import is_of_keras
from distkeras.model.schedule import Position, ScheduleSteps
from distkeras.model.spec import ModelSpec, deserialize_model
from distkeras.model.variables import Array, Cell, compact, digest_of_value, is_float, tree_of, value_of
from distkeras.model.weights import cells_of, reseed
from distkeras.worker.backends import make_replica
from distkeras.worker.memory import release_freed_memory
from distkeras.worker.nesterov import add_momentum
from distkeras.worker.replica import Replica

Key = tuple[str, float, ScheduleSteps]


@dataclass(frozen=True)
class CachedReplica:
    """A replica, and what belongs to its training besides the weights that come from the center.

    Attributes:
        key: of the model and its settings.
        replica: the compiled model.
        position: of the optimizer's schedules.
        optimizer: the optimizer's variables, without those that a training adds.
        local: variables of the model that stay in the worker and may change, by path: integers and seeds;
            each with what it began with.
        state: likewise, the optimizer's variables, with those that the training adds.
        fixed: weights that nothing should change, with the checksum that they began with.
    """

    key: Key
    replica: Replica
    position: Position
    optimizer: list[keras.Variable]
    local: dict[str, tuple[Cell, Array]]
    state: list[tuple[Cell, Array]]
    fixed: dict[str, tuple[Cell, int]]

    def reset(self, worker: int) -> None:
        """Put all but the center's weights back to where a new replica has them."""
        vars(self).pop("changed", None)
        self.replica.sync()
        for cell, value in (*self.local.values(), *self.state):
            cell.assign(np.broadcast_to(value, cell.shape))
        _reseed(self.replica.model, worker)
        self.position.begin()
        self.replica.model.reset_metrics()
        self.replica.load()

    def move_to(self, done: int) -> None:
        """Let the schedules go on from step number `done` of this worker's training."""
        if self.position.is_followed:
            self.replica.sync()
            self.position.move_to(done)
            self.replica.load()

    def changed_variables(self) -> dict[str, Array]:
        """Return, by path, the model's own variables that training has changed and no center holds."""
        cells = {path: cell for path, (cell, _) in self.local.items()}
        cells |= {path: cell for path, (cell, _) in self.fixed.items() if path in self.changed}
        self.replica.sync()
        return {path: np.array(value_of(cell)) for path, cell in cells.items()}

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        """Paths of the weights that nothing should change and something has, once the training has ended.

        They are looked through once: with a frozen backbone they are most of the model. `reset` forgets
        the answer.
        """
        self.replica.sync()
        fixed = self.fixed.items()
        return frozenset(path for path, (cell, digest) in fixed if digest_of_value(cell) != digest)

    def optimizer_state(self) -> list[Array]:
        """Return what the optimizer's variables hold."""
        self.replica.sync()
        return [np.array(value_of(variable)) for variable in self.optimizer]


_cache: list[CachedReplica] = []  # At most one: a second would take as much memory again.
_keys_made: list[Key] = []
_torch_seed: list[int] = []


@contextmanager
def replica_from_cache(
    spec: ModelSpec, worker: int, momentum: float, steps: ScheduleSteps | None = None
) -> Iterator[CachedReplica]:
    """Give a replica as a new process would make it, its weights zero or old: the center has them.

    It is the one that was kept, if that is of the same model and settings; else Keras begins anew. It is kept
    for the next training in this process if the block ends without an exception, and if no code of the
    user's own is in it, which may hold a state that nobody else knows of.

    Args:
        spec: the model.
        worker: index of the worker, which decides over its seeds.
        momentum: Nesterov momentum of the rule, 0 for none.
        steps: how a step counts for the schedules.
    """
    steps = steps or ScheduleSteps()
    key = (_digest(spec), momentum, steps)
    cached = _cache.pop() if _cache else None
    if cached is not None and cached.key == key:
        spec.process.apply()
        cached.reset(worker)
    else:
        cached = None  # Its memory is free before the next one takes its own.
        cached = _make(key, spec, worker, momentum)
    yield cached
    own = cloudpickle.loads(spec.saved.custom_objects) or not _is_of_keras(cloudpickle.loads(spec.compiled))
    if not own and not cached.changed:
        _cache.append(cached)


def _digest(spec: ModelSpec) -> str:
    optimizer = spec.optimizer
    texts = (optimizer.exclusions, spec.fingerprint, spec.process)
    arrays = [array.tobytes() for array in optimizer.values or ()]
    return digest_of_all(spec.saved.digest.encode(), spec.compiled, repr(texts).encode(), *arrays)


def _make(key: Key, spec: ModelSpec, worker: int, momentum: float) -> CachedReplica:
    if _keys_made:
        keras.utils.clear_session()  # A quarter of a second, for nothing in a new process.
        release_freed_memory()
    _keys_made.append(key)
    model = deserialize_model(spec, blank=True)
    optimizer = list(model.optimizer.variables) if model.optimizer is not None else []
    position = Position(model, key[2])
    moving = {id(cell) for cell in cells_of(model, spec.layout)}
    others = {path: cell for path, cell in tree_of(model).variables.items() if id(cell) not in moving}
    frozen = {path for path, cell in others.items() if is_float(cell)}
    add_momentum(model, momentum)
    replica = make_replica(model)
    local = {path: (cell, compact(cell)) for path, cell in others.items() if path not in frozen}
    of_optimizer = model.optimizer.variables if model.optimizer is not None else []
    state = [(cell, compact(cell)) for cell in of_optimizer if id(cell) not in moving]
    _reseed(model, worker)
    replica.load()
    fixed = {path: (others[path], digest_of_value(others[path])) for path in sorted(frozen)}
    return CachedReplica(key, replica, position, optimizer, local, state, fixed)


def _reseed(model: keras.Model, worker: int) -> None:
    if keras.backend.backend() == "torch":
        import torch

        # Its generator goes on from one training to the next, and begins alike in every process.
        if not _torch_seed:
            _torch_seed.append(torch.initial_seed())
        torch.manual_seed(_torch_seed[0])
    reseed(model, worker)


def _is_of_keras(setting: Any) -> bool:
    """Whether no code but Keras's own is in an argument of `compile`."""
    match setting:
        case Compiled():
            return _is_of_keras([setting.arguments, setting.attributes])
        case dict():
            return all(_is_of_keras(part) for part in setting.values())
        case list() | tuple():
            return all(_is_of_keras(part) for part in setting)
        case CopiedByValue(cls, attributes):
            return is_of_keras(cls) and _is_of_keras(attributes)
        case Pickled():
            return False
        case types.FunctionType():
            return is_of_keras(setting)
    return True
