"""The arguments of `compile`, as they travel: those Keras can rebuild from a configuration, and the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from distkeras.model import by_value
from distkeras.model.variables import Plain

Route = Literal["keras", "config", "own"]

NAMES = frozenset({"name", "_name", "built", "_built", "_lock", "_dtype"})
"""Attributes in which two objects of one configuration may differ."""


@dataclass(frozen=True)
class FromConfig:
    """The configuration of an optimizer or metric: it holds variables, so each process creates its own.

    Attributes:
        config: the configuration that Keras serializes.
        attributes: plain attributes that the configuration leaves out, by dotted path.
    """

    config: dict[str, Any]
    attributes: dict[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True)
class Pickled:
    """An optimizer or metric of a class that Keras cannot rebuild from a configuration."""

    data: bytes


@dataclass(frozen=True)
class CopiedByValue:
    """A loss, copied by its attributes: some Keras losses leave arguments out of their configuration (Huber's
    `delta`), and a loss holds no variables."""

    cls: type
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Compiled:
    """The compile settings of a model.

    Attributes:
        arguments: packed arguments of `compile`, by name.
        attributes: packed attributes that the model class's own `compile` has set, by name.
        route: "keras": by `keras.Model.compile`; "config": by the class's own `compile_from_config`; "own":
            by the class's own `compile`, with the arguments given to the trainer.
    """

    arguments: dict[str, Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    route: Route = "keras"


def compiled_by(model: keras.Model) -> Compiled:
    """Return the compile settings of `model`; without arguments if it is not compiled.

    A class with its own `compile_from_config` supplies its `get_compile_config`. For a class with only its
    own `compile`, the settings are the arguments it passed to Keras and the attributes it has set.
    """
    cls = type(model)
    own_config = cls.compile_from_config is not keras.Model.compile_from_config
    own = cls.compile is not keras.Model.compile
    if not model.compiled:
        return Compiled({}, route="config" if own_config else "own" if own else "keras")
    if own_config:
        return Compiled(dict(model.get_compile_config()), route="config")
    arguments = {name: pack(value) for name, value in model._compile_config.config.items()}
    # The optimizer with Keras's wrapper around it: a copy of the model may have another default policy.
    arguments["optimizer"] = pack(model.optimizer)
    if own:  # Its `compile` may take other arguments than Keras's; Keras stores those that it received.
        arguments = _as_keras_has_them(model)
    # Keras does not store `auto_scale_loss`, but the optimizer of a float16 model reveals it.
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    arguments["auto_scale_loss"] = scaled or model.dtype_policy.name != "mixed_float16"
    return Compiled(arguments)


def compile_by(model: keras.Model, compiled: Compiled, custom_objects: dict[str, Any]) -> None:
    """Compile `model` with a fresh optimizer, loss and metrics."""
    with keras.saving.custom_object_scope(custom_objects):
        if compiled.route == "config":
            config = {name: _as_config(value) for name, value in compiled.arguments.items()}
            model.compile_from_config(config)
        else:
            arguments = {name: unpack(value) for name, value in compiled.arguments.items()}
            compile_it = model.compile if compiled.route == "own" else _compile_of_keras(model)
            compile_it(**arguments)
        for name, value in compiled.attributes.items():
            setattr(model, name, unpack(value))


def attributes_set_by_compile(model: keras.Model, bare: keras.Model) -> dict[str, Any]:
    """Return the attributes, packed, that the class's own `compile` has set in `model` but not in `bare`."""
    missing = set(vars(model)) - set(vars(bare)) - by_value.COMPILED
    return {name: pack(vars(model)[name]) for name in sorted(missing) if not name.startswith("_")}


def pack(value: Any) -> Any:
    """Return `value`, an argument of `compile`, in a picklable form that shares no object with it."""
    if isinstance(value, dict):
        return {name: pack(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [pack(part) for part in value]
    if isinstance(value, keras.losses.Loss):
        return CopiedByValue(type(value), dict(vars(value)))
    if isinstance(value, keras.optimizers.Optimizer | keras.metrics.Metric):
        return _packed(value)
    return value


def unpack(value: Any) -> Any:
    """Return a new object from the packed `value`."""
    match value:
        case dict():
            return {name: unpack(part) for name, part in value.items()}
        case list():
            return [unpack(part) for part in value]
        case CopiedByValue(cls, attributes):
            loss: Any = object.__new__(cls)
            vars(loss).update(attributes)
            return loss
        case Pickled(data):
            return by_value.load_model(data)
        case FromConfig(config, attributes):
            # The configuration comes from the driver's own closure, so a lambda in it is the user's own.
            remade = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=False)
            for path, plain in attributes.items():
                *way, name = path.split(".")
                target = remade
                for step in way:
                    target = getattr(target, step)
                vars(target)[name] = plain
            return remade
    return value


def optimizers_in(optimizer: Any) -> list[keras.optimizers.Optimizer]:
    """Return `optimizer` and the optimizers it wraps, outermost first, without loss-scaling wrappers."""
    if optimizer is None:
        return []
    inner = getattr(optimizer, "inner_optimizer", None)
    several = [inner] if inner is not None else getattr(optimizer, "_inner_optimizers", [])
    own = [] if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else [optimizer]
    return [*own, *(each for part in several for each in optimizers_in(part))]


def _packed(value: Any) -> FromConfig | Pickled:
    """Return the configuration of an optimizer or metric if that rebuilds it, else a pickle."""
    try:
        config = keras.saving.serialize_keras_object(value)
        # A copy: Keras removes parts of its argument.
        trial = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=False)
    except Exception as error:
        if isinstance(value, keras.optimizers.Optimizer) and value.built:
            raise ValueError(
                f"Keras cannot rebuild {type(value).__name__} from its configuration, and a trained "
                "optimizer cannot be copied: define `get_config` with every argument of its constructor, or "
                f"give a new one. Received: {type(error).__name__}: {error}"
            ) from error
        return Pickled(by_value.dump_model(value))
    there = dict(_plain_attributes(trial))
    missing = {
        path: plain
        for path, plain in _plain_attributes(value)
        if path not in there or type(there[path]) is not type(plain) or there[path] != plain
    }
    return FromConfig(config, missing)


def _plain_attributes(value: Any, prefix: str = "") -> Iterator[tuple[str, Plain]]:
    """Yield the plain attributes of an optimizer, metric or schedule, and of nested ones, by dotted path."""
    schedules = keras.optimizers.schedules.LearningRateSchedule
    for name, part in vars(value).items():
        if isinstance(part, Plain) and name not in NAMES and part == part:
            yield prefix + name, part
        elif isinstance(part, schedules | keras.optimizers.Optimizer):
            yield from _plain_attributes(part, f"{prefix}{name}.")


def _compile_of_keras(model: keras.Model) -> Any:
    return keras.Model.compile.__get__(model)


def _as_keras_has_them(model: keras.Model) -> dict[str, Any]:
    """Return the arguments that `keras.Model.compile` received from a class with its own `compile`."""
    loss, metrics = getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None)
    arguments = {
        "optimizer": model.optimizer,
        "loss": None if loss is None else loss._user_loss,
        "loss_weights": None if loss is None else loss._user_loss_weights,
        "metrics": None if metrics is None else metrics._user_metrics,
        "weighted_metrics": None if metrics is None else metrics._user_weighted_metrics,
        "run_eagerly": model.run_eagerly,
        "steps_per_execution": model.steps_per_execution,
        "jit_compile": model.jit_compile,
    }
    return {name: pack(value) for name, value in arguments.items()}


def _as_config(value: Any) -> Any:
    """Return the configuration that Keras would make of a packed `value`."""
    return (
        value.config if isinstance(value, FromConfig) else keras.saving.serialize_keras_object(unpack(value))
    )
