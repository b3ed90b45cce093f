"""The user's classes and functions that a model's configuration names, so that they can travel with it."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from distkeras.model.compiling import Remade


def objects_of(live: list[Any], configs: list[Any]) -> dict[str, Any]:
    """Return the classes and functions not of Keras that `configs` name: registered, or found in `live`."""
    found: dict[str, Any] = {}
    _collect(live, found, set())
    names = set(_names(configs))
    objects = {name: keras.saving.get_registered_object(name) or found.get(name) for name in names}
    return {name: value for name, value in objects.items() if value is not None and not is_of_keras(value)}


def _collect(value: Any, found: dict[str, Any], seen: set[int]) -> None:
    """Put into `found` every function that Keras objects in `value` hold, and their classes, by name."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[Any] = ()
    if isinstance(value, types.FunctionType):
        found.setdefault(keras.saving.get_registered_name(value), value)
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple):
        parts = value
    elif hasattr(value, "get_config") and not isinstance(value, type):
        found.setdefault(keras.saving.get_registered_name(type(value)), type(value))
        parts = vars(value).values()
    for part in parts:
        _collect(part, found, seen)


def _names(config: Any) -> Iterator[str]:
    """Yield the names by which a Keras configuration calls for classes and functions."""
    if isinstance(config, Remade):
        yield from _names(config.config)
    if isinstance(config, list | tuple):
        for value in config:
            yield from _names(value)
    if isinstance(config, dict):
        class_name, inner = config.get("class_name"), config.get("config")
        if class_name == "function" and isinstance(inner, str):
            yield inner
        elif isinstance(class_name, str):
            yield config.get("registered_name") or class_name
        for value in config.values():
            yield from _names(value)


def is_of_keras(found: Any) -> bool:
    """Whether a class or function is Keras's own."""
    return str(getattr(found, "__module__", "")).partition(".")[0] == "keras"
