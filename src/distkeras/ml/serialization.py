"""Objects as values of Params: the object itself, with a JSON form that Spark can save."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from typing import Any

import keras

from distkeras.algorithms import Algorithm
from distkeras.wire.codecs import Codec

KINDS = (
    keras.Layer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.regularizers.Regularizer,
    keras.initializers.Initializer,
    keras.constraints.Constraint,
)
"""Base classes of the user's classes that may be imported by the name in a file."""


class Serialized(dict[str, Any]):
    """The JSON form of an object; `deserialized` returns the object.

    An object that was given, not read from a file, is kept with its form. Another process need not be able to
    import its class.

    Args:
        form: the result of Keras's `serialize_keras_object`, `{"dataclass": ..., "config": ...}`, or
            `{"custom_object": ..., "module": ...}`.
        value: the object; None to create it from the form at the first access.
    """

    def __init__(self, form: dict[str, Any], value: Any = None) -> None:
        super().__init__(form)
        self._value = value

    @property
    def value(self) -> Any:
        """The object.

        Raises:
            ValueError: the form names a class that is not found or not allowed.
        """
        if self._value is None:
            self._value = self._made()
        return self._value

    def _made(self) -> Any:
        if "dataclass" in self:
            return _dataclass_of(self)
        return _found(self) if "custom_object" in self else keras.saving.deserialize_keras_object(self)


def serialized(value: Any) -> Any:
    """Return the JSON form of `value`: an algorithm, options, a codec, a Keras object or function, or a
    structure of them. Strings and numbers stay unchanged.

    Raises:
        TypeError: `value` has no JSON form.
    """
    if value is None or isinstance(value, str | bool | int | float | Serialized):
        return value
    if isinstance(value, list | tuple):
        return [serialized(part) for part in value]
    if isinstance(value, dict):
        if "dataclass" in value or "class_name" in value or "custom_object" in value:
            return Serialized(value)
        return {str(name): serialized(part) for name, part in value.items()}
    if _is_known(type(value)):
        return Serialized(_form_of(value), value)
    try:
        return Serialized(_form_of_keras(value), value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(
            "Expected a name, a Keras object or function, or an object of distkeras, which have a JSON form. "
            f"Received: {value!r}"
        ) from error


def custom_object(name: str, value: Any) -> Serialized:
    """Return the form of a user's class or function: its module and name, for import in another process.

    Args:
        name: the name of the class or function in the model.
        value: the class or function, or its saved form.

    Raises:
        TypeError: `value` is neither a class nor a function.
    """
    if isinstance(value, Mapping) and "custom_object" in value:
        return value if isinstance(value, Serialized) else Serialized(dict(value))
    if not isinstance(value, type | types.FunctionType):
        raise TypeError(f"Expected a class or a function as {name!r}. Received: {value!r}")
    return Serialized({"custom_object": name, "module": value.__module__, "path": value.__qualname__}, value)


def check_findable(objects: Mapping[str, Serialized]) -> None:
    """Raise ValueError for a class or function that no other process can find by its module."""
    for name, form in objects.items():
        if "<" in form["path"] and keras.saving.get_registered_object(name) is None:
            raise ValueError(
                f"The custom object {name!r} cannot be saved: it is defined inside a function, where loading "
                "cannot find it. Define it at the top level of a module, or register it with "
                f"`keras.saving.register_keras_serializable()`. Received: {form['path']} of {form['module']}"
            )


def deserialized(value: Any) -> Any:
    """Return the value that was passed to `serialized`; forms that were read from a file become objects.

    Raises:
        ValueError: a class is not found.
    """
    if isinstance(value, Serialized):
        return value.value
    if isinstance(value, list):
        return [deserialized(part) for part in value]
    if isinstance(value, dict):
        return {name: deserialized(part) for name, part in value.items()}
    return value


def _form_of_keras(value: Any) -> dict[str, Any]:
    form: dict[str, Any] = keras.saving.serialize_keras_object(value)
    if isinstance(value, keras.losses.Loss):
        # Some of Keras's losses leave arguments out of their configuration, such as Huber's delta.
        taken = inspect.signature(type(value)).parameters
        arguments = vars(value).get("_fn_kwargs", {})
        missing = {name: serialized(given) for name, given in arguments.items() if name in taken}
        form["config"] = missing | form["config"]
    return form


def _form_of(value: Any) -> dict[str, Any]:
    cls = type(value)
    config = {
        field.name: serialized(getattr(value, field.name))
        for field in dataclasses.fields(value)
        if field.init
    }
    return {"dataclass": f"{cls.__module__}.{cls.__qualname__}", "config": config}


def _dataclass_of(form: Serialized) -> Any:
    path, config = form["dataclass"], form["config"]
    module, _, name = path.rpartition(".")
    cls: Any = keras.saving.get_registered_object(name)
    if cls is None:
        try:
            cls = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"The class {name!r} is not found. Expected it in the module {module!r}, where it was when "
                "it was saved: make that module importable, or load inside "
                f"`keras.saving.custom_object_scope({{{name!r}: {name}}})`. "
                f"Received: {path!r}"
            ) from error
    if not _is_known(cls):
        raise ValueError(
            f"Expected a dataclass of distkeras, or a subclass of its Algorithm or Codec. Received: {path!r}"
        )
    # JSON has no tuples, only lists.
    arguments: dict[str, Any] = {
        key: tuple(part) if isinstance(part, list) else deserialized(part)
        for key, part in serialized(config).items()
    }
    return cls(**arguments)


def _found(form: Serialized) -> Any:
    """Return the user's class or function: registered with Keras, in a scope, or imported from its module.

    A file must not be able to run arbitrary code. Therefore an import may only give a subclass of one of
    Keras's classes, or a function that the module itself defines.
    """
    name, module, path = form["custom_object"], form["module"], form["path"]
    value: Any = keras.saving.get_registered_object(name)
    if value is not None:
        return value
    try:
        value = attrgetter(path)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The custom object {name!r} is not found. Expected {path!r} in the module {module!r}, where it "
            "was when it was saved: make that module importable, or load inside "
            f"`keras.saving.custom_object_scope({{{name!r}: {path}}})`."
        ) from error
    own = isinstance(value, types.FunctionType) and value.__module__ == module
    if not own and not (isinstance(value, type) and issubclass(value, KINDS)):
        raise ValueError(
            f"Expected {path!r} of the module {module!r} to be a subclass of one of Keras's classes, or a "
            f"function that the module defines. Received: {value!r}"
        )
    return value


def _is_known(cls: Any) -> bool:
    """Whether a saved Param may name this dataclass. All other objects with a form belong to Keras."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return False
    return issubclass(cls, Algorithm | Codec) or cls.__module__.partition(".")[0] == "distkeras"
