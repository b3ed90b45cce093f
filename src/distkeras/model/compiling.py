"""The arguments of `compile`, as they travel: what Keras can make anew from a configuration, and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Remade:
    """An optimizer or metric by its configuration: it holds variables, so each process makes its own."""

    config: dict[str, Any]


@dataclass(frozen=True)
class Copied:
    """A loss by its attributes: some of Keras's own leave arguments out of their configuration (Huber's
    `delta`), and a loss holds no variables."""

    cls: type
    attributes: dict[str, Any]


def settings_of(model: keras.Model) -> dict[str, Any]:
    """Return what `model` was compiled with, packed by argument of `compile`; empty if it was not.

    A class with a `compile_from_config` of its own gives what its `get_compile_config` says.
    """
    if not model.compiled:
        return {}
    if has_own_compile(model):
        return dict(model.get_compile_config())
    settings = {name: pack(value) for name, value in model._compile_config.config.items()}
    # Keras does not note it, but a float16 model shows it by its optimizer.
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    settings["auto_scale_loss"] = scaled or model.dtype_policy.name != "mixed_float16"
    return settings


def compile_by(model: keras.Model, settings: dict[str, Any], custom_objects: dict[str, Any]) -> None:
    """Compile `model` with packed `settings`: a fresh optimizer, loss and metrics."""
    with keras.saving.custom_object_scope(custom_objects):
        if has_own_compile(model):
            model.compile_from_config({name: _as_config(value) for name, value in settings.items()})
        else:
            model.compile(**{name: _unpack(value) for name, value in settings.items()})


def has_own_compile(model: keras.Model) -> bool:
    """Whether the class of `model` says itself how it is compiled from a configuration.

    Raises:
        ValueError: it has a `compile` of its own and does not say.
    """
    cls = type(model)
    own = cls.compile_from_config is not keras.Model.compile_from_config
    if not own and cls.compile is not keras.Model.compile:
        raise ValueError(
            "Expected a model class with a `compile` of its own to define `get_compile_config` and "
            f"`compile_from_config` too, so that workers can compile it. Received: model={cls.__name__}"
        )
    return own


def pack(value: Any) -> Any:
    """Return `value`, an argument of `compile`, in a form that pickles and shares nothing with it."""
    if isinstance(value, dict):
        return {name: pack(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [pack(part) for part in value]
    if isinstance(value, keras.losses.Loss):
        return Copied(type(value), dict(vars(value)))
    if isinstance(value, keras.optimizers.Optimizer | keras.metrics.Metric):
        return Remade(keras.saving.serialize_keras_object(value))
    return value


def _unpack(value: Any) -> Any:
    match value:
        case dict():
            return {name: _unpack(part) for name, part in value.items()}
        case list():
            return [_unpack(part) for part in value]
        case Copied(cls, attributes):
            loss: Any = object.__new__(cls)
            vars(loss).update(attributes)
            return loss
        case Remade(config):
            # It comes from the driver's own closure, so a lambda in it is the user's own.
            return keras.saving.deserialize_keras_object(config, safe_mode=False)
    return value


def _as_config(value: Any) -> Any:
    """The configuration Keras would make of a packed `value`."""
    return value.config if isinstance(value, Remade) else keras.saving.serialize_keras_object(_unpack(value))
