"""Random numbers of a model in a worker: its seed generators, and the generators of the process.

Code that is given no generator draws from those of the process: on PyTorch a `Dropout` without a seed, and on
every backend code of the user's that calls `keras.random.normal(shape)`, `np.random.rand()` or
`random.random()`. They travel as the model's seed generators do. Worker 0 begins where the driver's are, as
`fit` would; every other worker begins elsewhere; and the driver's go on where worker 0 ends.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from distkeras.model.functions import is_filled, names_in
from distkeras.model.kinds import package_of
from distkeras.model.process import ONE_AT_A_TIME, backend_name
from distkeras.model.variables import Array, value_of

States = Mapping[str, Array]
"""The states of a process's generators, by name, as bytes; without bytes for one that nobody has made yet."""

GLOBAL_SEED_GENERATOR = "global_seed_generator"
"""Keras's own name of it, which the oldest Keras that is allowed has not given a name."""

NONE = np.empty(0, np.uint8)

MOST = 10_000
"""Parts of a container above which it holds data, such as a vocabulary, and no generators."""

LIBRARIES = ("builtins", "jax", "jaxlib", "numpy", "tensorflow", "torch")
"""Packages whose objects refer to no generator of the user's."""


def reseed(root: Any, worker: int) -> None:
    """Give the generators of random numbers in `root` a state that no other worker has.

    Worker 0 keeps the state that has travelled, so that one worker alone equals plain Keras. The same worker
    gets the same state every time.

    Args:
        root: a deserialized model, with all that it is compiled with, or a function of the user's. Its seed
            generators, and generators of NumPy, Python and the backend, are changed in place.
        worker: index of the worker.
    """
    if worker == 0:
        return
    states = _seed_states(root) if isinstance(root, keras.Model) else []
    for generator in _generators_in(root):
        # Keras counts those in attributes of layers alone, and not those of losses, optimizers and functions.
        if isinstance(generator, keras.random.SeedGenerator):
            states.append(generator.state)
        else:
            _reseed(generator, worker)
    for variable in {id(variable): variable for variable in states}.values():
        seed, *rest = (int(value) for value in keras.ops.convert_to_numpy(variable))
        variable.assign(np.array([_mixed(seed, worker), *rest], variable.dtype))


def advance_seeds(model: keras.Model, steps: int) -> None:
    """Move the seed generators of `model` on, as if each had drawn once in each of `steps` minibatches."""
    for variable in _seed_states(model):
        seed, drawn = keras.ops.convert_to_numpy(variable)
        variable.assign(np.array([seed, drawn + steps], variable.dtype))


def generator_states() -> dict[str, Array]:
    """Return the states of this process's generators."""
    return {name: generator.state() for name, generator in _generators().items()}


def set_generators(states: States, worker: int = 0) -> None:
    """Set this process's generators to `states`; in workers other than 0 to states that no other worker has.

    Args:
        states: from `generator_states`, of any process with the same backend.
        worker: index of the worker.
    """
    for name, generator in _generators().items():
        state = states.get(name)
        if state is None:
            continue
        if worker == 0 or not state.size:
            generator.set_state(state)
        else:
            generator.seed(_mixed(_digest(state), worker))


def take_back(states: States, sent: States) -> None:
    """Let this process's generators go on with `states`, unless they are no longer as `sent`.

    Args:
        states: where the generators went on, such as those of worker 0 at its end.
        sent: what `states` began with. A generator that was used here meanwhile has gone on by itself.
    """
    for name, generator in _generators().items():
        before, after = sent.get(name), states.get(name)
        if before is None or after is None or np.array_equal(after, before):
            continue
        if np.array_equal(generator.state(), before):
            generator.set_state(after)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the generators as they are found: a layer that is made in the block may draw a seed."""
    with ONE_AT_A_TIME:
        before = generator_states()
        try:
            yield
        finally:
            take_back(before, generator_states())


@dataclass(frozen=True)
class _Generator:
    state: Callable[[], Array]
    set_state: Callable[[Array], None]
    seed: Callable[[int], object]


def _generators() -> dict[str, _Generator]:
    """Return the generators of this process, by name."""
    found = {
        "python": _Generator(_python_state, _set_python_state, random.seed),
        "numpy": _Generator(_numpy_state, _set_numpy_state, np.random.seed),
        "keras": _Generator(_keras_state, _set_keras_state, _seed_keras),
    }
    match backend_name():
        case "torch":
            import torch

            found["torch"] = _Generator(_torch_state, _set_torch_state, torch.manual_seed)
        case "tensorflow":
            import tensorflow as tf

            found["tensorflow"] = _Generator(_tensorflow_seed, _set_tensorflow_seed, tf.random.set_seed)
    return found


def _python_state() -> Array:
    _, numbers, gauss = random.getstate()
    return _bytes_of(np.array(numbers, np.uint32), np.array([np.nan if gauss is None else gauss]))


def _set_python_state(state: Array) -> None:
    numbers, (gauss,) = state[:-8].view(np.uint32), state[-8:].view(np.float64)
    random.setstate((3, tuple(map(int, numbers)), None if np.isnan(gauss) else float(gauss)))


def _numpy_state() -> Array:
    state = np.random.get_state(legacy=False)
    if state["bit_generator"] != "MT19937":  # The user has put another one in its place.
        return NONE
    inner = state["state"]
    place = np.array([inner["pos"], state["has_gauss"]], np.uint32)
    return _bytes_of(inner["key"], place, np.array([state["gauss"]]))


def _set_numpy_state(state: Array) -> None:
    if not state.size:
        return
    key, (position, has_gauss), (gauss,) = (
        state[:-16].view(np.uint32),
        state[-16:-8].view(np.uint32),
        state[-8:].view(np.float64),
    )
    np.random.set_state(("MT19937", key, int(position), int(has_gauss), float(gauss)))


def _keras_state() -> Array:
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return NONE if generator is None else _bytes_of(np.asarray(value_of(generator.state), np.int64))


def _set_keras_state(state: Array) -> None:
    if state.size:
        _seed_keras(0).state.assign(state.view(np.int64))
    else:  # It is made when somebody draws from it, with a seed from Python's.
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)


def _seed_keras(seed: int) -> keras.random.SeedGenerator:
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    if generator is None:
        generator = keras.random.SeedGenerator(0)
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
    generator.state.assign(np.array([seed, 0], generator.state.dtype))
    return generator


def _torch_state() -> Array:
    import torch

    state: Array = torch.get_rng_state().numpy()
    return state


def _set_torch_state(state: Array) -> None:
    import torch

    # Those of GPUs, which have no part in the state, get its seed.
    torch.manual_seed(_digest(state))
    torch.set_rng_state(torch.tensor(state))


def _tensorflow_seed() -> Array:
    from tensorflow.python.eager import context

    seed = context.global_seed()
    return NONE if seed is None else _bytes_of(np.array([seed], np.int64))


def _set_tensorflow_seed(state: Array) -> None:
    import tensorflow as tf

    if state.size:  # TensorFlow has no state but the seed, and begins anew with it.
        tf.random.set_seed(int(state.view(np.int64)[0]))


def _bytes_of(*arrays: Array) -> Array:
    return np.concatenate([array.view(np.uint8) for array in arrays])


def _digest(state: Array) -> int:
    """Return 32 bits that depend on all of `state`."""
    return int.from_bytes(hashlib.sha256(state.tobytes()).digest()[:4], "little")


def _mixed(seed: int, worker: int) -> int:
    """Return 31 bits of `seed` and `worker`: seed states are uint32, int32 or int64, by backend."""
    return int(np.random.SeedSequence([seed % 2**32, worker]).generate_state(1)[0]) >> 1


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of `model` that are not weights: the states of its seed generators."""
    weights = {id(weight) for weight in model.weights}
    states = {id(variable): variable for variable in model.variables if id(variable) not in weights}
    return list(states.values())


def _generators_in(root: Any) -> list[Any]:
    """Return the generators that `root` refers to, as do its parts and their code."""
    found: list[Any] = []
    seen: dict[int, Any] = {}
    waiting: list[Any] = [root]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            seen[id(part)] = part
            if _is_generator(part):
                found.append(part)
            else:
                waiting += _parts_of(part)
    return found


def _is_generator(value: Any) -> bool:
    known = keras.random.SeedGenerator | np.random.Generator | np.random.RandomState | random.Random
    own = type(value).__name__ == "Generator" and package_of(type(value)) in ("tensorflow", "torch")
    return own or isinstance(value, known)


def _reseed(generator: Any, worker: int) -> None:
    """Seed a generator of another library than Keras by its own numbers and `worker`."""
    match generator:
        case np.random.Generator():
            bits = type(generator.bit_generator)(_mixed(int(generator.integers(2**32)), worker))
            generator.bit_generator.state = bits.state
        case np.random.RandomState():
            seed = _mixed(int(generator.randint(2**32, dtype=np.uint32)), worker)
            generator.set_state(
                np.random.RandomState(type(generator._bit_generator)(seed)).get_state(legacy=False)
            )
        case random.Random():
            generator.seed(_mixed(generator.getrandbits(32), worker))
        case _ if package_of(type(generator)) == "torch":
            generator.manual_seed(_mixed(_digest(generator.get_state().numpy()), worker))
        case _:
            generator.reset_from_seed(_mixed(int(generator.uniform_full_int((), "uint32")), worker))


def _parts_of(value: Any) -> list[Any]:
    """Return what a container, a function, or an object of Keras or of a class of the user's refers to."""
    match value:
        case dict() | list() | tuple() | set() | frozenset() if len(value) > MOST:
            return []
        case dict():
            return list(value.values())
        case list() | tuple() | set() | frozenset():
            return list(value)
        case types.FunctionType():
            names = [] if _is_of_library(value) else sorted(names_in(value.__code__))
            variables = [value.__globals__[name] for name in names if name in value.__globals__]
            return [*(value.__closure__ or ()), *variables, value.__defaults__, value.__kwdefaults__]
        case types.CellType():
            return [value.cell_contents] if is_filled(value) else []
        case types.MethodType():
            return [value.__self__, value.__func__]
        case functools.partial():
            return [value.func, value.args, value.keywords]
        case type() | types.ModuleType():
            return []
    if package_of(type(value)) in LIBRARIES:
        return []
    own = [each for each in type(value).__mro__ if not _is_of_library(each)]
    methods = [part for each in own for part in vars(each).values() if isinstance(part, types.FunctionType)]
    return [*getattr(value, "__dict__", {}).values(), *methods]


def _is_of_library(found: Any) -> bool:
    """Whether a class or function is no code of the user's."""
    return package_of(found) in ("keras", *LIBRARIES)
