"""Converters of the estimators' Params: they check a value and convert it to a canonical form."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from pyspark.ml.param.shared import TypeConverters

from distkeras import algorithms
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.placement import Placement
from distkeras.cluster.resources import Resources
from distkeras.lifecycle import StopWhen
from distkeras.ml.names import check_optimizer_name
from distkeras.ml.serialization import Serialized, custom_object, serialized
from distkeras.monitor.monitors import monitors_of
from distkeras.transformers.base import finite
from distkeras.wire import codecs
from distkeras.worker.feeding import Feeding

OPTIONS = {
    "featuresCol": "features_col",
    "labelCol": "label_col",
    "weightCol": "sample_weight_col",
    "classWeight": "class_weight",
    "loss": "loss",
    "metrics": "metrics",
    "lossWeights": "loss_weights",
    "numWorkers": "num_workers",
    "batchSize": "batch_size",
    "numEpoch": "num_epoch",
    "preprocess": "preprocess",
    "padTo": "pad_to",
    "dropRemainder": "drop_remainder",
    "seed": "seed",
    "quorum": "quorum",
    "compression": "compression",
    "overlap": "overlap",
    "server": "server",
    "serverPlacement": "server_placement",
    "minWorkers": "min_workers",
    "maxWorkers": "max_workers",
    "resources": "resources",
    "verbose": "verbose",
    "customObjects": "custom_objects",
}
"""The Params that are passed to `DistributedTrainer` directly, with the names of its arguments."""

AROUND = {
    "validationSplit": "validation_split",
    "validationFreq": "validation_freq",
    "validateOn": "validate_on",
    "stepsPerEpoch": "steps_per_epoch",
    "run": "run",
    "resume": "resume",
    "monitor": "monitor",
}
"""The Params that are passed to `DistributedTrainer.train` directly, with the names of its arguments."""


class Callbacks(Serialized):
    """Callbacks as the value of a Param: their classes are saved, for the message, and not what they hold."""

    def _made(self) -> Any:
        raise ValueError(
            "A list of callbacks is not saved with an estimator: set `callbacks` again, or save a function "
            f"that returns them. Received: saved callbacks={self['callbacks']}"
        )


def to_callbacks(value: Any) -> Any:
    """Param converter: a list of Keras callbacks, or a function without arguments that returns one."""
    if isinstance(value, Serialized):
        return value
    if isinstance(value, Mapping):
        return Callbacks(dict(value)) if "callbacks" in value else serialized(dict(value))
    if isinstance(value, types.FunctionType):
        return custom_object(value.__name__, value)
    listed = list(value) if isinstance(value, Iterable) else [value]
    for each in listed:
        if not isinstance(each, keras.callbacks.Callback):
            raise TypeError(
                "Expected a list of Keras callbacks, or a function without arguments that returns one. "
                f"Received: {value!r}"
            )
    return Callbacks({"callbacks": [type(each).__name__ for each in listed]}, listed)


class Monitors(Serialized):
    """Monitors as the value of a Param: names can be saved, objects cannot."""

    def _made(self) -> Any:
        if self["objects"]:
            raise ValueError(
                "Monitors that are objects are not saved with an estimator: set `monitor` again. "
                f"Received: saved monitors {self['objects']}"
            )
        return self["monitors"]


def to_monitor(value: Any) -> Any:
    """Param converter: a name, a `distkeras.monitor.Monitor`, or a list of these."""
    if isinstance(value, Mapping):
        return value if isinstance(value, Serialized) else Monitors(dict(value))
    listed = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    monitors_of(listed)
    names = [each for each in listed if isinstance(each, str)]
    objects = [type(each).__name__ for each in listed if not isinstance(each, str)]
    return Monitors({"monitors": names, "objects": objects}, listed)


def to_stop(value: Any) -> dict[str, Any]:
    """Param converter: `StopWhen`, or a dict of its arguments, which is its saved form."""
    if isinstance(value, StopWhen):
        return value.arguments()
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected distkeras.StopWhen, or a dict of its arguments. Received: {value!r}")
    return StopWhen(**value).arguments()


def to_share(value: Any) -> float:
    """Param converter: a number of at least 0 and less than 1."""
    share = finite(value)
    if not 0 <= share < 1:
        raise ValueError(f"Expected a share of at least 0 and less than 1. Received: {value!r}")
    return share


def to_resume(value: Any) -> bool | str:
    """Param converter: True, False or "auto"."""
    if not isinstance(value, bool) and value != "auto":
        raise ValueError(f'Expected True, False or "auto". Received: resume={value!r}')
    return value if isinstance(value, bool) else "auto"


def to_place(value: Any) -> str:
    """Param converter: "auto", "driver" or "workers"."""
    if value not in ("auto", "driver", "workers"):
        raise ValueError(f'Expected "auto", "driver" or "workers". Received: validateOn={value!r}')
    return str(value)


def to_names(value: Any) -> Any:
    """Param converter: a column, a list of columns, or a dict of columns by name."""
    if isinstance(value, str):
        return value
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(parts, Iterable) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"Expected a column, a list of columns, or a dict of columns. Received: {value!r}")
    return dict(value) if isinstance(value, Mapping) else list(value)


def to_model(value: Any) -> keras.Model:
    if not isinstance(value, keras.Model):
        raise TypeError(f"Expected a Keras model. Received: {type(value)}")
    return value


def to_form(value: Any) -> Any:
    """Param converter: an object, its name, or its saved form."""
    if isinstance(value, bool | int | float):
        raise TypeError(f"Expected an object or its name. Received: {value!r}")
    return serialized(value)


def to_metrics(value: Any) -> Any:
    """Param converter: metrics, as Keras takes them."""
    if not isinstance(value, list | tuple | dict):
        raise TypeError(f"Expected a list or a dict of metrics. Received: {value!r}")
    return serialized(value)


def to_optimizer(value: Any) -> Any:
    if isinstance(value, str):
        check_optimizer_name(value)  # Refuse an unknown name here, not in the middle of a parameter grid.
    return to_form(value)


def to_verbose(value: Any) -> int | str:
    """Param converter: `verbose`, as trainers take it."""
    if value not in (0, 1, 2, "auto"):
        raise ValueError(f'Expected 0, 1, 2 or "auto", or True or False. Received: verbose={value!r}')
    return "auto" if value == "auto" else int(value)


def to_thresholds(value: Any) -> list[float]:
    """Param converter: one threshold per class."""
    thresholds: list[float] = [finite(part) for part in TypeConverters.toList(value)]
    if min(thresholds, default=-1.0) < 0 or thresholds.count(0.0) > 1:
        raise ValueError(
            f"Expected one threshold above 0 per class; one may be 0. Received: thresholds={value!r}"
        )
    return thresholds


def to_custom_objects(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of classes and functions by name. Received: {value!r}")
    return {str(name): custom_object(name, part) for name, part in value.items()}


def to_algorithm(value: Any) -> Any:
    return to_form(algorithms.get(value) if isinstance(value, str) else value)


def to_compression(value: Any) -> Any:
    if isinstance(value, str):
        codecs.get(value)  # Refuse an unknown name here, not in the middle of a parameter grid.
    return to_form(value)


def to_overlap(value: Any) -> bool | int:
    """Param converter: True, False, or a number of steps."""
    if isinstance(value, bool):
        return value
    steps: int = TypeConverters.toInt(value)
    return steps


def to_server(value: Any) -> Any:
    if not isinstance(value, ServerOptions | Serialized | dict):
        raise TypeError(f"Expected distkeras.ServerOptions. Received: {value!r}")
    return serialized(value)


def to_placement(value: Any) -> Any:
    """Param converter: where the parameter servers run, as trainers take it."""
    if isinstance(value, Serialized | dict):
        return serialized(value)
    Placement.of(value)
    return value if isinstance(value, str) else serialized(value)


def to_resources(value: Any) -> Any:
    if not isinstance(value, Resources | Serialized | dict):
        raise TypeError(f"Expected distkeras.Resources. Received: {value!r}")
    return serialized(value)


def to_preprocess(value: Any) -> Any:
    """Param converter: a function, or its saved form."""
    if not isinstance(value, dict):
        Feeding(preprocess=value)
    return serialized(value)


def to_pad_to(value: Any) -> Any:
    """Param converter: `pad_to`, as trainers take it."""
    if not isinstance(value, Serialized):
        Feeding(pad_to=value)
    return serialized(value)


def to_class_weight(value: Any) -> dict[int, float]:
    """Param converter: a weight by class index. Keys may be strings, as in JSON."""
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of numbers by class index. Received: {value!r}")
    return {int(index): finite(weight) for index, weight in value.items()}


def to_options(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of arguments of DistributedTrainer. Received: {value!r}")
    names = {argument: name for name, argument in OPTIONS.items()}
    for argument in set(value) & set(names):
        raise ValueError(f"Pass {argument!r} as the Param {names[argument]!r}. Received: {value!r}")
    return serialized(dict(value))
