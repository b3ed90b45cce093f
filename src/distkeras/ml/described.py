"""Objects as the values of Params: JSON for Spark to save, and alive for whoever gave them."""

from __future__ import annotations

import dataclasses
import inspect
from importlib import import_module
from typing import Any

import keras

from distkeras.algorithms import Algorithm
from distkeras.wire.codecs import Codec


class Described(dict[str, Any]):
    """The JSON form of an object, which `alive` turns back.

    An object that was given, rather than read, is kept beside its form: its class need not be one that
    another process finds.

    Args:
        form: of Keras's `serialize_keras_object`, or `{"dataclass": ..., "config": ...}`.
        value: the object; None: made of the form when it is first asked for.
    """

    def __init__(self, form: dict[str, Any], value: Any = None) -> None:
        super().__init__(form)
        self._value = value

    @property
    def value(self) -> Any:
        """The object.

        Raises:
            ValueError: the form names a class that is not found, or none of those that are allowed.
        """
        if self._value is None:
            made = _dataclass_of(self) if "dataclass" in self else keras.saving.deserialize_keras_object(self)
            self._value = made
        return self._value


def described(value: Any) -> Any:
    """Return the JSON form of `value`: of a rule, options, a codec, a Keras object or function, a structure
    of them. Strings and numbers stay as they are.

    Raises:
        TypeError: it has no JSON form.
    """
    if value is None or isinstance(value, str | bool | int | float | Described):
        return value
    if isinstance(value, list | tuple):
        return [described(part) for part in value]
    if isinstance(value, dict):
        if "dataclass" in value or "class_name" in value:
            return Described(value)
        return {str(name): described(part) for name, part in value.items()}
    if _is_known(type(value)):
        return Described(_form_of(value), value)
    try:
        return Described(_form_of_keras(value), value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(
            "Expected a name, a Keras object or function, or a rule of distkeras, which have a form in JSON. "
            f"Received: {value!r}"
        ) from error


def alive(value: Any) -> Any:
    """Return what `described` was given, with every object made that was read from a file.

    Raises:
        ValueError: a class is not found.
    """
    if isinstance(value, Described):
        return value.value
    if isinstance(value, list):
        return [alive(part) for part in value]
    if isinstance(value, dict):
        return {name: alive(part) for name, part in value.items()}
    return value


def _form_of_keras(value: Any) -> dict[str, Any]:
    form: dict[str, Any] = keras.saving.serialize_keras_object(value)
    if isinstance(value, keras.losses.Loss):
        # Some of Keras's own leave arguments out of their configuration: Huber's delta.
        taken = inspect.signature(type(value)).parameters
        arguments = vars(value).get("_fn_kwargs", {})
        missing = {name: described(given) for name, given in arguments.items() if name in taken}
        form["config"] = missing | form["config"]
    return form


def _form_of(value: Any) -> dict[str, Any]:
    cls = type(value)
    config = {
        field.name: described(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init
    }
    return {"dataclass": f"{cls.__module__}.{cls.__qualname__}", "config": config}


def _dataclass_of(form: Described) -> Any:
    path, config = form["dataclass"], form["config"]
    module, _, name = path.rpartition(".")
    cls: Any = keras.saving.get_registered_object(name)
    if cls is None:
        try:
            cls = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"The class {name!r} is not found. Expected it in the module {module!r}, where it was when "
                "this was saved: make that importable, or load inside "
                f"`keras.saving.custom_object_scope({{{name!r}: {name}}})`. "
                f"Received: {path!r}"
            ) from error
    if not _is_known(cls):
        raise ValueError(
            "Expected a dataclass of distkeras, or one that derives from its Algorithm or Codec. "
            f"Received: {path!r}"
        )
    # JSON has lists alone.
    arguments: dict[str, Any] = {
        key: tuple(part) if isinstance(part, list) else alive(part) for key, part in described(config).items()
    }
    return cls(**arguments)


def _is_known(cls: Any) -> bool:
    """Whether a saved Param may name this dataclass; everything else that has a form is of Keras."""
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        return False
    return issubclass(cls, Algorithm | Codec) or cls.__module__.partition(".")[0] == "distkeras"
