"""The settings of a training in plain JSON. A resumed training compares them with those in the snapshot.

They leave out the settings that may change: the arguments in `MAY_CHANGE`, names that Keras numbers, and
initializers. Learning rates are under "rates": they may change, and the resumed training says so.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol

import keras
import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.center import RegionServers
from distkeras.center.layout import Layout
from distkeras.model.kinds import is_model
from distkeras.model.pytorch import is_wrapped_module
from distkeras.trainers.code import code_of
from distkeras.wire.codecs import Codec
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.feeding import Feeding

Json = dict[str, Any] | list[Any] | str | int | float | bool | None

AS_THEY_ARE = (
    *("batch_size", "num_epoch", "num_parameter_servers", "num_workers", "overlap", "quorum"),
    *("grace", "schedule_steps", "seed"),
)
"""Attributes of a trainer that are compared by value; `num_epoch` may be larger."""

MAY_CHANGE = {
    "custom_objects": "the classes that they name are compared, as part of the model",
    "input_shape": "the shapes of the weights are compared",
    "metrics": "they do not influence the training",
    "on_bad_update": "a training that a bad update ended may resume and skip the update",
    "on_lost_worker": "the workers that are present decide the action",
    "resources": "they decide where and how fast the workers run",
    "min_workers": "the workers that are there decide nothing but the order of the commits",
    "server": "a new process may run on another machine, with other limits",
    "server_placement": "the servers compute the same wherever they run",
    "verbose": "it only decides the output",
}
"""Arguments of trainers that may differ in a resumed training, and the reasons."""


class Configured(Protocol):
    """The attributes of a trainer that decide its center, besides `AS_THEY_ARE`."""

    compared: ClassVar[tuple[str, ...]]
    algorithm: Algorithm
    num_workers: int
    regions: RegionServers | None
    compression: Codec | None
    feeding: Feeding
    class_weight: ClassWeight | None
    keras_model: keras.Model


def settings_of(
    trainer: Configured, layout: Layout, compiled: Mapping[str, Json], shuffle: bool, num_rows: int
) -> dict[str, Any]:
    """Return the settings that decide the center and the minibatches. They must be equal on resume.

    The order of the rows in partitions is left out. If it differs, the interrupted epoch differs, and all
    later epochs still see every row once.
    """
    plain = {name: getattr(trainer, name) for name in (*AS_THEY_ARE, *trainer.compared)}
    together = trainer.num_workers // (1 if trainer.regions is None else trainer.regions.num_regions)
    feeding, weights = trainer.feeding, trainer.class_weight
    columns = {name: getattr(trainer, name) for name in ("features_col", "label_col", "sample_weight_col")}
    return {
        **plain,
        "algorithm": describe_algorithm(trainer.algorithm.for_workers(together)),
        "rule": describe_algorithm(trainer.algorithm),
        "regions": None
        if trainer.regions is None
        else describe_regions(trainer.regions, trainer.num_workers),
        "compression": repr(trainer.compression),
        "drop_remainder": feeding.drop_remainder,
        "num_rows": num_rows,
        "pad_to": repr(feeding.pad_to),
        "preprocess": getattr(feeding.preprocess, "__name__", _plain(feeding.preprocess)),
        **code_of(preprocess=feeding.preprocess),
        "shuffle": shuffle,
        "weights": [[segment.path, list(segment.shape)] for segment in layout.segments()],
        "model": describe_model(trainer.keras_model),
        **compiled,
        **describe_columns(**columns, class_weight=None if weights is None else asdict(weights)),
    }


def describe_model(model: keras.Model) -> Json:
    """Return the configuration of a built `model` without its weights. Layers are named by position."""
    layers = list(model._flatten_layers())
    places = {layer.name: f"layer {index}" for index, layer in enumerate(layers)}
    config = _config_of(model)
    if "layers" not in config:
        own = [layer for layer in layers if layer is not model]
        config = config | {"layers": [[type(layer).__name__, _config_of(layer)] for layer in own]}
    return {"class": type(model).__qualname__, "config": _plain(config, places)}


def _config_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """Return the configuration of `layer`; empty if it has none. Its weights are still compared."""
    if is_wrapped_module(layer):
        return {"module": repr(layer.module)}
    if is_model(layer) and any(map(is_wrapped_module, layer._flatten_layers())):
        return {}  # It would have the weights of the module in it. The inner layers are described themselves.
    try:
        config: dict[str, Any] = layer.get_config()
    except Exception:  # Whatever a user's class raises. Keras cannot save it, and it travels by value.
        return {}
    return config


def describe_algorithm(algorithm: Algorithm) -> Json:
    """Return name and parameters of an algorithm, without its rates, which must follow the optimizer's."""
    parameters = {field.name: getattr(algorithm, field.name) for field in fields(algorithm)}
    if algorithm.fragments != 1:
        parameters |= {"fragments": algorithm.fragments, "fragment_pattern": algorithm.fragment_pattern}
    return {"name": algorithm.name, **_object(_plain(_without_rate(parameters)))}


def describe_regions(regions: RegionServers, num_workers: int) -> Json:
    """Return servers in two levels. Their states need the same number of workers in each region."""
    rule = describe_algorithm(regions.algorithm)
    return {"num_regions": regions.num_regions, "num_workers": num_workers, "algorithm": rule}


def describe_compiled(
    model: keras.Model, optimizer: str | keras.optimizers.Optimizer | None, loss: Any, loss_weights: Any
) -> dict[str, Json]:
    """Return the given optimizer, loss and loss weights, or those that `model` is compiled with."""
    if loss is None:
        loss, loss_weights = model.loss, loss_weights or getattr(model, "_loss_weights", None)
    own = isinstance(loss, types.FunctionType) and not loss.__module__.startswith("keras.")
    found = model.optimizer if optimizer is None else keras.optimizers.get(optimizer)
    return {
        **code_of(loss=loss if own else None),
        "optimizer": _plain(found),
        "rates": {"learning_rate": None if found is None else _rate_of(found)},
        "loss": _plain(loss),
        "loss_weights": _plain(loss_weights),
    }


def _rate_of(optimizer: keras.optimizers.Optimizer) -> Json:
    """Return the learning rate, or the configuration of its schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return float(str(np.float32(rate))) if isinstance(rate, float) else _plain(rate)  # As it was given.


def _plain(value: Any, places: Mapping[str, str] | None = None) -> Json:
    """Return `value` as plain JSON; names of layers are replaced by their `places`."""
    match value:
        case str():
            return (places or {}).get(value, value)
        case bool() | int() | float() | None:
            return value
        case Mapping():
            kept = {str(name): part for name, part in value.items() if not _is_free(str(name))}
            return {name: _plain(part, places) for name, part in kept.items()}
        case list() | tuple():
            return [_plain(part, places) for part in value]
        case np.ndarray() | np.generic():
            return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]
        case keras.optimizers.Optimizer():
            return {"class": type(value).__name__, **_object(_plain(_without_rate(value.get_config())))}
        case keras.losses.Loss():  # Some of Keras's losses leave arguments out of their configuration.
            attributes = {name: part for name, part in vars(value).items() if name != "name"}
            return {"class": type(value).__name__, **_object(_plain(attributes))}
    return getattr(value, "__qualname__", type(value).__qualname__)


def _object(value: Json) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _without_rate(config: Mapping[str, Any]) -> dict[str, Any]:
    free = ("name", "learning_rate")
    return {name: part for name, part in config.items() if not name.endswith(free)}


def _is_free(name: str) -> bool:
    """Whether a setting of a layer has no effect once the layer has weights."""
    return name.endswith(("_initializer", "build_config"))


def describe_columns(**columns: Any) -> dict[str, Json]:
    """Return the arguments that name the columns and the class weights of a training, as plain JSON."""
    return {name: _plain(_listed(value)) for name, value in columns.items()}


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else value
