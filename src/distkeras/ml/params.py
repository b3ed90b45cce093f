"""The Params of the estimators and their models."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import keras
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
    HasThresholds,
    HasValidationIndicatorCol,
    HasWeightCol,
    Param,
    Params,
    TypeConverters,
)

from distkeras import algorithms
from distkeras.accessors import accessors as _accessors
from distkeras.cluster.options import ServerOptions
from distkeras.ml.described import Described, alive, custom_object, described
from distkeras.ml.names import check_optimizer_name
from distkeras.transformers.base import finite, positive_integer
from distkeras.wire import codecs
from distkeras.worker.feeding import Feeding

P = TypeVar("P", bound=type[Params])

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
    "verbose": "verbose",
    "customObjects": "custom_objects",
}
"""The Params that are arguments of `DistributedTrainer` as they stand."""


def _names(value: Any) -> Any:
    """Param converter: a column, a list of columns, or a dict of columns by name."""
    if isinstance(value, str):
        return value
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(parts, Iterable) or not all(isinstance(part, str) for part in parts):
        raise TypeError(f"Expected a column, a list of columns, or a dict of columns. Received: {value!r}")
    return dict(value) if isinstance(value, Mapping) else list(value)


def _model(value: Any) -> keras.Model:
    if not isinstance(value, keras.Model):
        raise TypeError(f"Expected a Keras model. Received: {type(value)}")
    return value


def _form(value: Any) -> Any:
    """Param converter: an object, its name, or the form of it that was saved."""
    if isinstance(value, bool | int | float):
        raise TypeError(f"Expected an object or its name. Received: {value!r}")
    return described(value)


def _metrics(value: Any) -> Any:
    """Param converter: what Keras takes as metrics."""
    if not isinstance(value, list | tuple | dict):
        raise TypeError(f"Expected a list or a dict of metrics. Received: {value!r}")
    return described(value)


def _optimizer(value: Any) -> Any:
    if isinstance(value, str):
        check_optimizer_name(value)  # Refused here, rather than in the middle of a grid.
    return _form(value)


def _verbose(value: Any) -> int | str:
    """Param converter: as trainers take it."""
    if value not in (0, 1, "auto"):
        raise ValueError(f'Expected 0, 1 or "auto", or True or False. Received: verbose={value!r}')
    return "auto" if value == "auto" else int(value)


def _thresholds(value: Any) -> list[float]:
    """Param converter: a threshold for every class."""
    thresholds: list[float] = [finite(part) for part in TypeConverters.toList(value)]
    if min(thresholds, default=-1.0) < 0 or thresholds.count(0.0) > 1:
        raise ValueError(
            f"Expected a threshold above 0 for every class; one may be 0. Received: thresholds={value!r}"
        )
    return thresholds


def _custom_objects(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of classes and functions by name. Received: {value!r}")
    return {str(name): custom_object(name, part) for name, part in value.items()}


def _algorithm(value: Any) -> Any:
    return _form(algorithms.get(value) if isinstance(value, str) else value)


def _compression(value: Any) -> Any:
    if isinstance(value, str):
        codecs.get(value)  # Refuses an unknown name here, rather than in the middle of a grid.
    return _form(value)


def _server(value: Any) -> Any:
    if not isinstance(value, ServerOptions | Described | dict):
        raise TypeError(f"Expected distkeras.ServerOptions. Received: {value!r}")
    return described(value)


def _preprocess(value: Any) -> Any:
    """Param converter: a function, or the form of it that was saved."""
    if not isinstance(value, dict):
        Feeding(preprocess=value)
    return described(value)


def _pad_to(value: Any) -> Any:
    """Param converter: what trainers take as `pad_to`."""
    if not isinstance(value, Described):
        Feeding(pad_to=value)
    return described(value)


def _class_weight(value: Any) -> dict[int, float]:
    """Param converter: a weight by class index; JSON has keys of strings alone."""
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of a number by class index. Received: {value!r}")
    return {int(index): finite(weight) for index, weight in value.items()}


def _options(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise TypeError(f"Expected a dict of arguments of DistributedTrainer. Received: {value!r}")
    names = {argument: name for name, argument in OPTIONS.items()}
    for argument in set(value) & set(names):
        raise ValueError(f"Expected {argument!r} as the Param {names[argument]!r}. Received: {value!r}")
    return described(dict(value))


def _param(name: str, doc: str, converter: Callable[[Any], Any]) -> Any:
    return Param(Params._dummy(), name, doc, converter)


def set_given(stage: Params, given: Mapping[str, Any]) -> None:
    """Set the Params of `stage` that were given by name; None leaves one as it is.

    Raises:
        TypeError: it has no such Param, or of another type.
        ValueError: a value out of its range.
    """
    for name in given:
        if not stage.hasParam(name):
            names = sorted(param.name for param in stage.params)
            raise TypeError(f"{type(stage).__name__} has no Param {name!r}. Expected some of {names}")
    stage._set(**{name: value for name, value in given.items() if value is not None})


def accessors(cls: P) -> P:
    """Give `cls` a `getX` and a `setX` for every Param; objects come back as they were given."""
    return _accessors(cls, alive)


def custom_objects_of(stage: Params) -> dict[str, Any]:
    """Return the classes and functions that `customObjects` of `stage` names; none where it is not set.

    Raises:
        ValueError: one was saved, and is not found here.
    """
    return dict(alive(stage.getOrDefault("customObjects"))) if stage.isDefined("customObjects") else {}


class PredictionParams(HasFeaturesCol, HasPredictionCol):  # type: ignore[misc]
    """What a model needs to predict."""

    featuresCol: Param[Any] = _param(
        "featuresCol", "column of the model's input; a list for several inputs, or a dict by name", _names
    )
    predictBatchSize: Param[int] = _param(
        "predictBatchSize",
        "rows that the model takes at once to predict; unset: as many as suit the processor",
        positive_integer,
    )
    preprocess: Param[Any] = _param(
        "preprocess",
        "function of the columns of a minibatch that makes what the model takes, as in DistributedTrainer",
        _preprocess,
    )
    padTo: Param[Any] = _param(
        "padTo",
        'length to which rows of different lengths are filled up: a number, "longest", a list to round up '
        "to, a Padding, or a dict of these by column",
        _pad_to,
    )
    customObjects: Param[Any] = _param(
        "customObjects",
        "classes and functions that the model names, by name, where they are not registered with Keras",
        _custom_objects,
    )


class TrainingParams(HasLabelCol, HasWeightCol, HasValidationIndicatorCol):  # type: ignore[misc]
    """What an estimator needs to train. The words are those of `DistributedTrainer`."""

    model: Param[keras.Model] = _param("model", "the Keras model to train; it is left as it is", _model)
    labelCol: Param[Any] = _param(
        "labelCol", "column of the labels; a list for several outputs, or a dict by name", _names
    )
    algorithm: Param[Any] = _param(
        "algorithm", "the distributed optimizer: a rule of distkeras.algorithms, or its name", _algorithm
    )
    communicationWindow: Param[int] = _param(
        "communicationWindow",
        "minibatch steps between two exchanges of a worker, instead of the rule's own",
        positive_integer,
    )
    workerOptimizer: Param[Any] = _param(
        "workerOptimizer",
        "the Keras optimizer inside each worker; unset: the one that the model is compiled with",
        _optimizer,
    )
    learningRate: Param[float] = _param(
        "learningRate", "learning rate of workerOptimizer, instead of its own", finite
    )
    loss: Param[Any] = _param(
        "loss", "as keras.Model.compile takes it; unset: the one that the model is compiled with", _form
    )
    metrics: Param[Any] = _param("metrics", "as keras.Model.compile takes them", _metrics)
    lossWeights: Param[Any] = _param("lossWeights", "as keras.Model.compile takes them", described)
    classWeight: Param[dict[int, float]] = _param(
        "classWeight", "a number by class index, by which the loss of its rows is weighed", _class_weight
    )
    numWorkers: Param[int] = _param("numWorkers", "replicas, one a Spark task", positive_integer)
    batchSize: Param[int] = _param("batchSize", "rows in a minibatch of one worker", positive_integer)
    numEpoch: Param[int] = _param("numEpoch", "passes over the data", positive_integer)
    shuffle: Param[bool] = _param(
        "shuffle", "whether rows come in random order, another one every epoch", TypeConverters.toBoolean
    )
    dropRemainder: Param[bool] = _param(
        "dropRemainder",
        "leave out the last minibatch of a worker's epoch if it is not full",
        TypeConverters.toBoolean,
    )
    seed: Param[int] = _param(
        "seed", "of shuffling and of rows' way to workers; unset: random", TypeConverters.toInt
    )
    quorum: Param[int] = _param(
        "quorum", "messages that complete a synchronous round; unset: one of every worker", positive_integer
    )
    compression: Param[Any] = _param(
        "compression", "how workers compress their messages: a name such as int8, or a codec", _compression
    )
    overlap: Param[bool] = _param(
        "overlap", "train the next window while one is exchanged", TypeConverters.toBoolean
    )
    server: Param[Any] = _param("server", "where the parameter server listens: ServerOptions", _server)
    verbose: Param[Any] = _param(
        "verbose", "0: silent; 1: a progress bar; auto: a bar in a terminal or a notebook", _verbose
    )
    trainerOptions: Param[Any] = _param(
        "trainerOptions", "further arguments of distkeras.DistributedTrainer, by their names there", _options
    )


class ClassifierParams(HasProbabilityCol, HasThresholds, HasRawPredictionCol):  # type: ignore[misc]
    """What classifiers and their models have beside."""

    thresholds: Param[list[float]] = _param(
        "thresholds",
        "a threshold for every class: the class of the largest probability / threshold is predicted; one may "
        "be 0; unset: all alike",
        _thresholds,
    )

    fromLogits: Param[bool] = _param(
        "fromLogits",
        "whether the model gives logits rather than probabilities; an estimator's default: as the loss says",
        TypeConverters.toBoolean,
    )
