"""The attributes of a model's parts that no configuration names, in a form that travels.

Keras rebuilds a layer, an optimizer or a metric from the arguments of its constructor. It loses, without an
error, what was set later and what a `get_config` leaves out: a factor, a table, a list, a method that was
replaced on one object, the regularizer of one variable.
"""

from __future__ import annotations

import functools
import io
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from distkeras.model.by_value import (
    COMPILED,
    SETTINGS,
    TRACKED,
    Unpickler,
    WholePickler,
    is_constant,
    plain_type,
)
from distkeras.model.kinds import is_model, is_of_keras, package_of
from distkeras.model.pytorch import is_wrapped_module, set_module
from distkeras.model.variables import Plain, values_in

OF_KERAS = frozenset(
    {"name", "built", "training", "build", "quantize"}
    | {"lora_enabled", "lora_rank", "lora_alpha", "lora_kernel_a", "lora_kernel_b"}
    | {"lora_embeddings_a", "lora_embeddings_b"}
)
"""Attributes that creating, building or LoRA set; they are set again in the worker."""

OF_MODELS = COMPILED | frozenset(
    {"run_eagerly", "jit_compile", "steps_per_execution", "stop_training", "history"}
)
"""Attributes that compiling or training sets in a model."""

ALWAYS = ("_fn_kwargs",)
"""Names of Keras's own that one of its metrics (`CosineSimilarity`) leaves out of its configuration."""

LIBRARIES = (
    *("keras", "keras_hub", "keras_nlp", "keras_cv", "keras_rs"),
    *("tensorflow", "torch", "jax", "flax", "builtins"),
)
"""Packages whose classes keep their state in private attributes, such as the ids of objects."""


PARTS = (
    *(keras.Variable, keras.random.SeedGenerator),
    *(keras.optimizers.Optimizer, keras.metrics.Metric),
)
"""Classes of objects in attributes that Keras tracks: each copy makes its own."""


FOREIGN = (keras.KerasTensor, keras.Operation, keras.optimizers.Optimizer)
"""Classes of objects that an attribute cannot take along, even inside another object."""


@dataclass(frozen=True)
class Packed:
    """A value that is not plain.

    Attributes:
        data: a pickle that refers to layers and variables of the model by their paths; empty for a value
            that cannot travel, such as a lock.
    """

    data: bytes


Attributes = dict[str, Plain | Packed]
"""Values by the names of the attributes."""

CANNOT_TRAVEL = Packed(b"")


class _Foreign(Exception):
    """A value refers to a part of the model that has no path: a copy of it would be another one."""


def attributes_of(part: Any, paths: Mapping[int, str]) -> Attributes:
    """Return the attributes of `part` that are the user's, or that the user may set.

    Args:
        part: a layer, optimizer, metric or schedule.
        paths: of each object to which a value may refer, by `id`.
    """
    there = values_in(part)
    return {name: _packed(there[name], paths) for name in names_of(part, there) if _matters(there[name])}


def settings_of(variable: keras.Variable, paths: Mapping[int, str]) -> Attributes:
    """Return the settings of `variable`, and the attributes that the user has added to it."""
    there = vars(variable)
    names = [*(name for name in SETTINGS if name in there), *names_of(variable, there)]
    return {name: _packed(there[name], paths) for name in names}


def differences(given: Mapping[str, Attributes], copy: Mapping[str, Attributes]) -> dict[str, Attributes]:
    """Return the attributes that the parts of a copy lack or have otherwise, by the path of the part."""
    found = {}
    for path, attributes in given.items():
        there = copy.get(path, {})
        different = {
            name: value
            for name, value in attributes.items()
            if name not in there or not _alike(there[name], value)
        }
        if different:
            found[path] = different
    return found


def refuse_methods(attributes: Attributes, part: Any, owner: str) -> None:
    """Raise an error for a method that was set on one object and cannot travel.

    Args:
        attributes: those of `part` that differ from a copy's.
        part: a layer, optimizer or metric.
        owner: what the message calls it.

    Raises:
        ValueError: a method such as `model.train_step = function` cannot be pickled.
    """
    for name, value in attributes.items():
        if value == CANNOT_TRAVEL and callable(getattr(type(part), name, None)):
            raise ValueError(
                f"Expected methods that can be pickled. Received: {name!r}, which was set on {owner} and "
                "refers to something that cannot be pickled. Define a class with this method instead."
            )


def set_attributes(part: Any, attributes: Attributes, objects: Mapping[str, Any]) -> None:
    """Give `part` the values of `attributes`; `objects` are those of the copy, by path."""
    for name, value in attributes.items():
        if value == CANNOT_TRAVEL:
            continue
        loaded = loads(value.data, objects) if isinstance(value, Packed) else value
        if name == "module" and is_wrapped_module(part):
            set_module(part, loaded)
        else:
            setattr(part, name, loaded)


def dumps(value: Any, paths: Mapping[int, str]) -> bytes:
    """Return a pickle of `value` that refers to objects by their paths; other objects of Keras are copied."""
    return _dumped(value, paths, ())


def dumps_settings(value: Any, paths: Mapping[int, str]) -> bytes:
    """Return a pickle of compile settings, as `dumps` does.

    Raises:
        ValueError: a function refers to an optimizer: a copy of one that no training steps would stand still.
    """
    try:
        return _dumped(value, paths, (keras.optimizers.Optimizer,))
    except _Foreign as error:
        raise ValueError(
            "Expected losses, metrics and functions that refer to no optimizer: in a worker it would be one "
            f"that no training steps. Received: a reference to an optimizer {error}. Count the steps in a "
            "variable of a layer instead."
        ) from error


def loads(data: bytes, objects: Mapping[str, Any]) -> Any:
    """Return the value in `data`, from `dumps`, with the objects of those paths."""
    return Unpickler(io.BytesIO(data), objects).load()


def unpacked(attributes: Mapping[str, Attributes]) -> Iterator[Any]:
    """Yield the values that are not plain; layers and variables of the model are paths in them."""
    for named in attributes.values():
        for value in named.values():
            if isinstance(value, Packed) and value != CANNOT_TRAVEL:
                yield loads(value.data, Paths())


def has_packed(attributes: Attributes) -> bool:
    """Whether some of the values are not plain, and so may be the user's code."""
    return any(isinstance(value, Packed) for value in attributes.values())


class Paths(dict[str, Any]):
    """In place of objects: a `Reference` for each path."""

    def __missing__(self, path: str) -> Reference:
        return Reference(path)


class Reference:
    """Stands for a layer or variable where there is no model.

    Args:
        path: of the object.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return Reference(f"{self.path}.{name}")  # A method: `pickle` takes it from its object.

    def __call__(self) -> None:
        """Let `functools.partial` take it for a function."""


def names_of(part: Any, values: Mapping[str, Any]) -> list[str]:
    """Return the names of the attributes of `part`, among `values`, that are not those of Keras itself."""
    others = OF_KERAS | OF_MODELS if is_model(part) else OF_KERAS
    return sorted(
        name
        for name in values
        if name in ALWAYS
        or (name not in others and not (name.startswith("_") and _is_of_library(name, type(part))))
    )


def _matters(value: Any) -> bool:
    """Whether a copy's value may have to be replaced by `value`."""
    if isinstance(value, keras.initializers.Initializer):
        # The configuration names Keras's own; they are used once, and a copy may have zeros in their place.
        return not is_of_keras(type(value))
    return not _is_symbolic(value)


def _is_symbolic(value: Any) -> bool:
    """Whether `value` is a tensor without elements, which a call of the layer has left behind."""
    if not is_constant(value):
        return isinstance(value, keras.KerasTensor)
    try:
        keras.ops.convert_to_numpy(value)
    except Exception:  # The backends have no common one.
        return True
    return False


def _alike(one: Plain | Packed, other: Plain | Packed) -> bool:
    return type(one) is type(other) and (one == other or one != one)


def _packed(value: Any, paths: Mapping[int, str]) -> Plain | Packed:
    if isinstance(value, Plain):
        return value
    if _has_parts(value, paths):
        return CANNOT_TRAVEL
    try:
        return Packed(_dumped(value, paths, FOREIGN))
    except Exception:  # Locks, open files, whatever the user's objects raise.
        return CANNOT_TRAVEL


def _dumped(value: Any, paths: Mapping[int, str], refused: tuple[type, ...]) -> bytes:
    file = io.BytesIO()
    _Pickler(file, paths, refused).dump(value)
    return file.getvalue()


def _has_parts(value: Any, paths: Mapping[int, str]) -> bool:
    """Whether `value` is or contains a part without a path, such as the momentum of a variable."""
    if isinstance(value, Mapping):
        return any(_has_parts(each, paths) for each in value.values())
    if isinstance(value, list | tuple | set):
        return any(_has_parts(each, paths) for each in value)
    return isinstance(value, PARTS) and id(value) not in paths


class _Pickler(WholePickler):
    def __init__(self, file: io.BytesIO, paths: Mapping[int, str], refused: tuple[type, ...]) -> None:
        super().__init__(file, paths)
        self._refused = refused

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, keras.layers.Layer):
            return NotImplemented  # As Keras pickles it: a network that is no part of the model.
        if isinstance(value, self._refused):
            raise _Foreign(kind.__name__)
        if (function := _uncompiled(value)) is not None:
            return _same, (function,)
        if kind.__name__ in TRACKED or (
            isinstance(value, list | dict | tuple) and package_of(kind) == "tensorflow"
        ):
            # Keras and TensorFlow wrap the containers of a layer, and wrap them again when they are set.
            plain = plain_type(value)
            return plain, (plain(value),)
        return super().reducer_override(value)


def _uncompiled(value: Any) -> Any:
    """Return the function in what `tf.function` or `jax.jit` has made; a worker compiles the whole step."""
    names = {"tensorflow": "python_function", "jax": "__wrapped__", "jaxlib": "__wrapped__"}
    name = names.get(package_of(type(value)))
    return None if name is None else getattr(value, name, None)


def _same(value: Any) -> Any:
    return value


@functools.cache
def _names_in_library(cls: type) -> frozenset[str]:
    return frozenset(name for member in vars(cls).values() for name in _names_in_member(member))


def _is_of_library(name: str, cls: type) -> bool:
    """Whether the code of Keras or its backend in `cls` uses an attribute called `name`."""
    return any(name in _names_in(base) for base in cls.__mro__)


def _names_in(cls: type) -> frozenset[str]:
    return _names_in_library(cls) if package_of(cls) in LIBRARIES else frozenset()


def _names_in_member(member: Any) -> Iterator[str]:
    functions: list[Callable[..., Any] | None] = [member]
    if isinstance(member, property):
        functions = [member.fget, member.fset, member.fdel]
    elif isinstance(member, classmethod | staticmethod):
        functions = [member.__func__]
    for function in functions:
        while function is not None:
            yield from _names_in_code(getattr(function, "__code__", None))
            function = getattr(function, "__wrapped__", None)


def _names_in_code(code: Any) -> Iterator[str]:
    if not isinstance(code, types.CodeType):
        return
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):
            yield constant  # The name in a `setattr` or `getattr`.
        yield from _names_in_code(constant)
