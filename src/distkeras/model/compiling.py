"""The arguments of `compile`, as they travel: those Keras can rebuild from a configuration, and the rest."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import keras
import numpy as np

from distkeras.model import by_value
from distkeras.model.attributes import (
    Attributes,
    attributes_of,
    differences,
    names_of,
    refuse_methods,
    set_attributes,
)
from distkeras.model.kinds import is_of_keras
from distkeras.model.supplement import same_bits
from distkeras.model.variables import Array, Plain, Tree, value_of

Route = Literal["keras", "config", "own"]

NAMES = frozenset({"name", "_name", "built", "_built", "_lock", "_dtype"})
"""Attributes in which two objects of one configuration may differ."""

NESTED = (
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.metrics.Metric,
)
"""Classes of objects inside an optimizer or metric that have a configuration of their own."""


OWN = "its "
"""Begins the path of a part of an optimizer or metric, beside the paths of the model's parts."""


@dataclass(frozen=True)
class Around:
    """The objects of a model to which a compile setting may refer: a loss may add the norm of a kernel.

    Attributes:
        objects: what Keras tracks in the model, by path.
        optimizers: the model's optimizer, and those that it wraps; empty before the model is compiled.
    """

    objects: Mapping[str, Any]
    optimizers: Sequence[Any] = ()

    @classmethod
    def of(cls, tree: Tree) -> Around:
        """Return the objects of `tree`."""
        return cls(tree.objects())

    @functools.cached_property
    def paths(self) -> dict[int, str]:
        """The paths by the `id` of their objects."""
        return {id(part): path for path, part in self.objects.items()}


@dataclass(frozen=True)
class FromConfig:
    """The configuration of an optimizer or metric: it holds variables, so each process creates its own.

    Attributes:
        config: the configuration that Keras serializes.
        attributes: attributes that the configuration leaves out, by dotted path of the object that has them:
            "" for the optimizer or metric itself, "inner_optimizer" for one that it wraps.
        values: values of its variables, if a new one begins with others: the user may have set the count of
            steps, or a variable of a metric that `reset_state` leaves alone.
    """

    config: dict[str, Any]
    attributes: dict[str, Attributes] = field(default_factory=dict)
    values: tuple[Array, ...] = ()


@dataclass(frozen=True)
class OfModel:
    """An attribute that is the model's optimizer, or one that this wraps.

    Attributes:
        index: 0 for the optimizer; those inside follow.
    """

    index: int


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


def compiled_by(model: keras.Model, around: Around) -> Compiled:
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
    arguments = {name: pack(value, around) for name, value in model._compile_config.config.items()}
    # The optimizer with Keras's wrapper around it: a copy of the model may have another default policy.
    arguments["optimizer"] = pack(model.optimizer, around)
    if own:  # Its `compile` may take other arguments than Keras's; Keras stores those that it received.
        arguments = _as_keras_has_them(model, around)
    # Keras does not store `auto_scale_loss`, but the optimizer of a float16 model reveals it.
    scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    arguments["auto_scale_loss"] = scaled or model.dtype_policy.name != "mixed_float16"
    return Compiled(arguments)


def compile_by(
    model: keras.Model, compiled: Compiled, custom_objects: dict[str, Any], around: Around
) -> None:
    """Compile `model` with a fresh optimizer, loss and metrics."""
    with keras.saving.custom_object_scope(custom_objects):
        if compiled.route == "config":
            config = {name: _as_config(value, around) for name, value in compiled.arguments.items()}
            model.compile_from_config(config)
        else:
            arguments = {name: unpack(value, around) for name, value in compiled.arguments.items()}
            compile_it = model.compile if compiled.route == "own" else _compile_of_keras(model)
            compile_it(**arguments)
        around = replace(around, optimizers=chain_of(model))
        for name, value in compiled.attributes.items():
            setattr(model, name, unpack(value, around))


def attributes_set_by_compile(model: keras.Model, bare: keras.Model, around: Around) -> dict[str, Any]:
    """Return the attributes, packed, that the class's own `compile` has set in `model` but not in `bare`."""
    given, there, around = vars(model), vars(bare), replace(around, optimizers=chain_of(model))
    return {
        name: pack(given[name], around)
        for name in names_of(model, given)
        if name not in there or (there[name] is None and isinstance(given[name], NESTED))
    }


def pack(value: Any, around: Around) -> Any:
    """Return `value`, an argument of `compile`, in a picklable form that shares no object with it.

    Args:
        value: a setting, or a dict or list of them.
        around: the objects of the model to which it may refer.
    """
    for index, optimizer in enumerate(around.optimizers):
        if value is optimizer:
            return OfModel(index)
    if isinstance(value, dict):
        return {name: pack(part, around) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [pack(part, around) for part in value]
    if isinstance(value, keras.losses.Loss):
        return CopiedByValue(type(value), dict(vars(value)))
    if isinstance(value, keras.optimizers.Optimizer | keras.metrics.Metric):
        return _packed(value, around)
    return value


def unpack(value: Any, around: Around) -> Any:
    """Return a new object from the packed `value`; `around` has the objects of the new model."""
    match value:
        case OfModel(index):
            return around.optimizers[index]
        case dict():
            return {name: unpack(part, around) for name, part in value.items()}
        case list():
            return [unpack(part, around) for part in value]
        case CopiedByValue(cls, attributes):
            loss: Any = object.__new__(cls)
            vars(loss).update(attributes)
            return loss
        case Pickled(data):
            return by_value.load_model(data, around.objects)
        case FromConfig(config, attributes, values):
            # The configuration comes from the driver's own closure, so a lambda in it is the user's own.
            remade = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=False)
            parts = _parts_of(remade)
            objects = {**around.objects, **{OWN + path: part for path, part in parts.items()}}
            for path, named in attributes.items():
                set_attributes(parts[path], named, objects)
            for variable, array in zip(remade.variables if values else (), values, strict=True):
                variable.assign(array)
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


def _packed(value: Any, around: Around) -> FromConfig | Pickled:
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
        return Pickled(by_value.dump_model(value, around.paths))
    parts, new = _parts_of(value), _parts_of(trial)
    # A part that the other lacks is the value of an attribute like any other.
    missing = differences(
        _attributes_in({path: part for path, part in parts.items() if path in new}, around),
        _attributes_in({path: part for path, part in new.items() if path in parts}, around),
    )
    for path, named in missing.items():
        refuse_methods(named, parts[path], type(value).__name__)
    return FromConfig(config, missing, _values_set_in(value, trial))


def _values_set_in(value: Any, trial: Any) -> tuple[Array, ...]:
    """Return the values of the variables of `value` that `trial`, a new one, begins with otherwise."""
    is_metric = isinstance(value, keras.metrics.Metric)
    # Keras's metrics begin with zeros; the state of an optimizer that is built travels apart.
    begins = is_of_keras(type(value)) if is_metric else value.built
    if begins or len(value.variables) != len(trial.variables):
        return ()
    new = [np.array(value_of(variable)) for variable in trial.variables]
    found = [np.array(value_of(variable)) for variable in value.variables]
    if [each.shape for each in found] != [each.shape for each in new]:
        return ()
    if is_metric:  # As a training begins.
        for variable, array in zip(trial.variables, found, strict=True):
            variable.assign(array)
        trial.reset_state()
        found = [np.array(value_of(variable)) for variable in trial.variables]
    return () if all(map(same_bits, found, new)) else tuple(found)


def _attributes_in(parts: dict[str, Any], around: Around) -> dict[str, Attributes]:
    """Return the attributes of an optimizer, metric or schedule, and of nested ones, by dotted path."""
    paths = around.paths | {id(part): OWN + path for path, part in parts.items()}
    found = {}
    for path, part in parts.items():
        plain: Attributes = {
            name: each for name, each in vars(part).items() if isinstance(each, Plain) and name not in NAMES
        }
        found[path] = plain | attributes_of(part, paths)
    return found


def _parts_of(value: Any) -> dict[str, Any]:
    """Return an optimizer, metric or schedule, and those in its attributes, by dotted path."""
    found: dict[str, Any] = {}

    def walk(part: Any, path: str) -> None:
        if any(part is other for other in found.values()):
            return
        found[path] = part
        for name, inner in vars(part).items():
            several = inner if isinstance(inner, list | tuple) else [inner]
            for index, each in enumerate(several):
                if isinstance(each, NESTED):
                    walk(each, ".".join(filter(None, [path, name, str(index) if each is not inner else ""])))

    walk(value, "")
    return found


def chain_of(model: keras.Model) -> list[Any]:
    """Return the optimizer of `model` and those that it wraps; none if it is not compiled."""
    return [] if model.optimizer is None else [model.optimizer, *optimizers_in(model.optimizer)]


def _compile_of_keras(model: keras.Model) -> Any:
    return keras.Model.compile.__get__(model)


def _as_keras_has_them(model: keras.Model, around: Around) -> dict[str, Any]:
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
    return {name: pack(value, around) for name, value in arguments.items()}


def _as_config(value: Any, around: Around) -> Any:
    """Return the configuration that Keras would make of a packed `value`."""
    return (
        value.config
        if isinstance(value, FromConfig)
        else keras.saving.serialize_keras_object(unpack(value, around))
    )
