"""The user's classes and functions that a model's configuration names; they travel with the model."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from distkeras.model.compiling import Compiled, FromConfig
from distkeras.model.kinds import is_of_keras
from distkeras.model.process import ONE_AT_A_TIME


class DuplicateName(ValueError):
    """Two classes have the same name, so a configuration would be ambiguous."""


@contextlib.contextmanager
def unique_names(live: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield all functions and classes of the user that the Keras objects in `live` hold, by registered name.

    Inside the block each function has a unique name: a configuration refers to functions by name, and lambdas
    and functions created by functions share theirs.

    Raises:
        DuplicateName: two classes have one name; classes cannot be renamed.
    """
    classes: dict[str, type] = {}
    functions: list[types.FunctionType] = []
    _collect(live, classes, functions, set())
    with ONE_AT_A_TIME:
        names = {id(function): function.__name__ for function in functions}
        found: dict[str, Any] = dict(classes)
        try:
            for index, function in enumerate(functions):
                name = keras.saving.get_registered_name(function)
                if name in found or not function.__name__.isidentifier():
                    function.__name__ = name = f"{function.__name__.strip('<>')}__{index}"
                found[name] = function
            yield found
        finally:
            for function in functions:
                function.__name__ = names[id(function)]


def named_in(objects: dict[str, Any], configs: list[Any]) -> dict[str, Any]:
    """Return the user's classes and functions that `configs` name: registered, or among `objects`."""
    names = set(_names(configs))
    found = {name: keras.saving.get_registered_object(name) or objects.get(name) for name in names}
    return {name: value for name, value in found.items() if value is not None and not is_of_keras(value)}


def _collect(
    value: Any, classes: dict[str, type], functions: list[types.FunctionType], seen: set[int]
) -> None:
    """Collect every function that Keras objects in `value` hold, and the classes of these objects."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[Any] = ()
    if isinstance(value, types.FunctionType):
        if not is_of_keras(value):
            functions.append(value)
    elif isinstance(value, dict):
        parts = list(value.values())  # At once: another training may use the same object.
    elif isinstance(value, list | tuple):
        parts = value
    elif hasattr(value, "get_config") and not isinstance(value, type):
        _add_class(type(value), classes)
        parts = list(vars(value).values())
    for part in parts:
        _collect(part, classes, functions, seen)


def _add_class(cls: type, classes: dict[str, type]) -> None:
    if is_of_keras(cls):
        return
    name = keras.saving.get_registered_name(cls)
    if classes.setdefault(name, cls) is not cls:
        raise DuplicateName(
            f"Expected every class in the model to have a unique name. Received: two classes {name!r}, "
            f"{classes[name].__qualname__} and {cls.__qualname__}. Register them under two names with "
            "keras.saving.register_keras_serializable."
        )


def _names(config: Any) -> Iterator[str]:
    """Yield the names of classes and functions in a Keras configuration."""
    if isinstance(config, Compiled):
        yield from _names([config.arguments, config.attributes])
    if isinstance(config, FromConfig):
        yield from _names(config.config)
    if isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)
    if isinstance(config, dict):
        class_name, inner = config.get("class_name"), config.get("config")
        if class_name == "function" and isinstance(inner, str):
            yield inner
            yield config.get("registered_name") or inner
        elif isinstance(class_name, str):
            yield config.get("registered_name") or class_name
        for value in config.values():
            yield from _names(value)
