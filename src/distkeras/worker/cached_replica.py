"""The compiled replica that a Python worker keeps for its next training of the same model."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import cloudpickle
import keras
import numpy as np

from distkeras.center.orders import Orders
from distkeras.model.archive import digest_of_all
from distkeras.model.attributes import Paths, has_packed, loads
from distkeras.model.compiling import Compiled, CopiedByValue, FromConfig, Pickled
from distkeras.model.kinds import is_of_keras
from distkeras.model.optimizer import set_learning_rate
from distkeras.model.other_optimizers import other_states, set_other_states, split
from distkeras.model.randomness import States, generator_states, reseed, set_generators
from distkeras.model.schedule import Position, ScheduleSteps
from distkeras.model.spec import ModelSpec, deserialize_model
from distkeras.model.variables import Array, Cell, compact, digest_of_value, is_float, tree_of, value_of
from distkeras.model.weights import cells_of
from distkeras.worker.backends import make_replica
from distkeras.worker.final_state import GENERATOR, named
from distkeras.worker.local_state import LocalState
from distkeras.worker.memory import release_freed_memory
from distkeras.worker.nesterov import add_momentum
from distkeras.worker.primal_averaging import add_averaging
from distkeras.worker.replica import Replica

Inner = float | tuple[float, float]
"""What an algorithm adds to the optimizer: Nesterov momentum, 0 for none; or `mu_x, mu_y` of averaging."""

Key = tuple[str, Inner, ScheduleSteps]


@dataclass(frozen=True)
class CachedReplica:
    """A replica and its training state, except the weights that come from the center.

    Attributes:
        key: identifies the model and its settings.
        replica: the compiled model.
        position: the step of the optimizer's schedules.
        optimizer: the optimizer's variables, without those that a training adds.
        local: variables of the model that stay in the worker and may change (integers and seeds), by path,
            each with its initial value.
        state: the optimizer's variables, including those that the training adds, with their initial values.
        fixed: weights that should not change, with their initial checksums.
        worker: index of the worker.
        generators: where the driver's generators of random numbers are. This process's begin there in worker
            0, and elsewhere in each other one; those without a state here go on as they are.
        training: name of the only training that uses it, task after task; "" for any.
    """

    key: Key
    replica: Replica
    position: Position
    optimizer: list[keras.Variable]
    local: dict[str, tuple[Cell, Array]]
    state: list[tuple[Cell, Array]]
    fixed: dict[str, tuple[Cell, int]]
    worker: int
    generators: States
    training: str = ""

    def go_on(self) -> None:
        """Keep the optimizer's state, integers and seeds, for the next task of the same training."""
        vars(self).pop("changed", None)
        self.replica.sync()
        self.replica.model.reset_metrics()
        self.replica.load()

    def reset(self) -> None:
        """Reset everything except the center's weights to the state of a new replica."""
        vars(self).pop("changed", None)
        self.replica.sync()
        for cell, value in (*self.local.values(), *self.state):
            cell.assign(np.broadcast_to(value, cell.shape))
        reseed(self.replica.model, self.worker)
        set_generators(self.generators, self.worker)
        self.position.begin()
        self.replica.empty_metrics()
        self.replica.load()

    def move_to(self, done: int) -> None:
        """Let the schedules continue from step `done` of this worker's training."""
        if self.position.is_followed:
            self.replica.sync()
            self.position.move_to(done)
            self.replica.load()

    def obey(self, orders: Orders, done: int) -> None:
        """Set the optimizer's learning rate and the place of its schedules as `orders` say.

        Args:
            orders: orders that this worker has not seen.
            done: minibatches of this worker's training so far.

        Raises:
            ValueError: a learning rate is ordered, and the optimizer has a schedule.
        """
        if orders.learning_rate is None and orders.step is None:
            return
        self.replica.sync()
        if orders.learning_rate is not None:
            set_learning_rate(self.replica.model.optimizer, orders.learning_rate)
        if orders.step is not None:
            self.position.move_to(done, orders.step)
        self.replica.load()

    def changed_variables(self) -> dict[str, Array]:
        """Return variables of the model that training has changed and the center does not hold, by path."""
        cells = {path: cell for path, (cell, _) in self.local.items()}
        cells |= {path: cell for path, (cell, _) in self.fixed.items() if path in self.changed}
        self.replica.sync()
        return {path: np.array(value_of(cell)) for path, cell in cells.items()}

    def other_states(self) -> dict[str, Array]:
        """Return the state of further optimizers of the model, by name."""
        self.replica.sync()
        return other_states(self.replica.model)

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        """Paths of weights that should not change but have changed by the end of the training.

        Computed once per training: with a frozen backbone these weights are most of the model. `reset` clears
        the result.
        """
        self.replica.sync()
        fixed = self.fixed.items()
        return frozenset(path for path, (cell, digest) in fixed if digest_of_value(cell) != digest)

    def optimizer_state(self) -> list[Array]:
        """Return the values of the optimizer's variables."""
        self.replica.sync()
        return [np.array(value_of(variable)) for variable in self.optimizer]

    def local_state(self) -> LocalState:
        """Return what another process needs, besides the center, to go on exactly as this one.

        Weights that should not change are left out, even if they have changed.
        """
        optimizer = self.optimizer_state()
        return LocalState(
            {path: np.array(value_of(cell)) for path, (cell, _) in self.local.items()} | self.other_states(),
            optimizer,
            self.replica.collected_metrics(),
            {name: np.array(value_of(cell)) for name, cell in self._further.items()}
            | {f"{GENERATOR}{name}": state for name, state in generator_states().items()},
        )

    def restore(self, state: LocalState) -> None:
        """Set the variables to `state`, which a replica of the same model and settings returned.

        The metrics are the caller's: see `Replica.collect_metrics`.

        Raises:
            ValueError: the state is of another model.
        """
        cells: dict[str, Cell] = {f"variable {path}": cell for path, (cell, _) in self.local.items()}
        cells |= {f"optimizer {index}": cell for index, cell in enumerate(self.optimizer)}
        cells |= self._further
        further = {name: value for name, value in state.further.items() if not name.startswith(GENERATOR)}
        variables, others = split(state.variables)
        values = {f"variable {path}": value for path, value in variables.items()}
        values |= {f"optimizer {index}": value for index, value in enumerate(state.optimizer)} | further
        shapes = {name: tuple(cell.shape) for name, cell in cells.items()}
        if shapes != {name: value.shape for name, value in values.items()}:
            raise ValueError(
                f"Expected the local state of {self.replica.model.name!r}, of {len(shapes)} variables. "
                f"Received: one of {len(values)} variables, or with other names or shapes"
            )
        self.replica.sync()
        for name, cell in cells.items():
            cell.assign(values[name])
        set_other_states(self.replica.model, others)
        set_generators(named(state.further, GENERATOR))
        self.replica.load()

    @property
    def _further(self) -> dict[str, Cell]:
        """The optimizer's variables that the training adds, by their place."""
        known = {id(variable) for variable in self.optimizer}
        return {str(place): cell for place, (cell, _) in enumerate(self.state) if id(cell) not in known}


_cache: list[CachedReplica] = []  # At most one: a second would double the memory.
_keys_made: list[Key] = []


@contextmanager
def replica_from_cache(
    spec: ModelSpec,
    worker: int,
    inner: Inner,
    steps: ScheduleSteps | None = None,
    *,
    generators: States = MappingProxyType({}),
    training: str = "",
) -> Iterator[CachedReplica]:
    """Yield a replica in the state of a new process; its weights are zero or old and come from the center.

    The replica is the cached one, if that has the same model and settings; otherwise Keras creates it. It is
    cached for the next training in this process if the block ends without an exception and the model contains
    no code of the user's, which may hold hidden state.

    Args:
        spec: the model.
        worker: index of the worker, which determines its seeds.
        inner: what the algorithm adds to the optimizer.
        steps: how a step counts for the schedules.
        generators: as in `CachedReplica`.
        training: name of the training. If the cached replica is of the same one, it goes on with its
            optimizer; "" for a new optimizer.
    """
    steps = steps or ScheduleSteps()
    key = (_digest(spec), inner, steps)
    cached = _cache.pop() if _cache else None
    if cached is not None and (cached.key, cached.training) == (key, training):
        spec.process.apply()
        cached = replace(cached, worker=worker, generators=generators)
        if training:
            cached.go_on()
        else:
            cached.reset()
    else:
        cached = None  # Free its memory before the next replica allocates its own.
        cached = _make(key, spec, worker, inner, generators, training)
    yield cached
    if training:  # Hidden state of the user's code goes on as well, in this training alone.
        _cache.append(cached)
        return
    if not _has_own_code(spec) and not cached.changed:
        _cache.append(cached)


def _has_own_code(spec: ModelSpec) -> bool:
    """Whether the model or its compile settings may contain code of the user's."""
    supplement = spec.saved.supplement
    named = [*supplement.attributes.values(), *supplement.settings.values()]
    if cloudpickle.loads(spec.saved.custom_objects) or any(map(has_packed, named)):
        return True
    return not _is_of_keras(loads(spec.compiled, Paths()))


def _digest(spec: ModelSpec) -> str:
    optimizer = spec.optimizer
    texts = (optimizer.exclusions, spec.fingerprint, spec.process)
    arrays = [array.tobytes() for array in (*(optimizer.values or ()), *optimizer.others.values())]
    return digest_of_all(spec.saved.digest.encode(), spec.compiled, repr(texts).encode(), *arrays)


def _make(
    key: Key, spec: ModelSpec, worker: int, inner: Inner, generators: States, training: str
) -> CachedReplica:
    if _keys_made:
        keras.utils.clear_session()  # It takes 0.25 s, and is not needed in a new process.
        release_freed_memory()
    _keys_made.append(key)
    model = deserialize_model(spec, blank=True)
    optimizer = list(model.optimizer.variables) if model.optimizer is not None else []
    position = Position(model, key[2])
    moving = {id(cell) for cell in cells_of(model, spec.layout)}
    others = {path: cell for path, cell in tree_of(model).variables.items() if id(cell) not in moving}
    frozen = {path for path, cell in others.items() if is_float(cell)}
    if isinstance(inner, tuple):
        add_averaging(model, inner)
    else:
        add_momentum(model, inner)
    replica = make_replica(model)
    local = {path: (cell, compact(cell)) for path, cell in others.items() if path not in frozen}
    of_optimizer = model.optimizer.variables if model.optimizer is not None else []
    state = [(cell, compact(cell)) for cell in of_optimizer if id(cell) not in moving]
    reseed(model, worker)
    set_generators(generators, worker)
    replica.load()
    fixed = {path: (others[path], digest_of_value(others[path])) for path in sorted(frozen)}
    return CachedReplica(key, replica, position, optimizer, local, state, fixed, worker, generators, training)


def _is_of_keras(setting: Any) -> bool:
    """Whether an argument of `compile` contains no code but Keras's own."""
    match setting:
        case Compiled():
            return _is_of_keras([setting.arguments, setting.attributes])
        case dict():
            return all(_is_of_keras(part) for part in setting.values())
        case list() | tuple():
            return all(_is_of_keras(part) for part in setting)
        case CopiedByValue(cls, attributes):
            return is_of_keras(cls) and _is_of_keras(attributes)
        case FromConfig(_, attributes):
            return not any(map(has_packed, attributes.values()))
        case Pickled():
            return False
        case types.FunctionType():
            return is_of_keras(setting)
    return True
