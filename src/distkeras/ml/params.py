"""The Params of the estimators and their models."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from collections.abc import Callable, Mapping
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

from distkeras.accessors import accessors as _accessors
from distkeras.ml.converters import (
    to_algorithm,
    to_class_weight,
    to_compression,
    to_custom_objects,
    to_form,
    to_metrics,
    to_model,
    to_names,
    to_optimizer,
    to_options,
    to_pad_to,
    to_preprocess,
    to_server,
    to_thresholds,
    to_verbose,
)
from distkeras.ml.serialization import deserialized, serialized
from distkeras.transformers.base import finite, positive_integer

P = TypeVar("P", bound=type[Params])


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
    return _accessors(cls, deserialized)


def custom_objects_of(stage: Params) -> dict[str, Any]:
    """Return the classes and functions that `customObjects` of `stage` names; none where it is not set.

    Raises:
        ValueError: one was saved, and is not found here.
    """
    return dict(deserialized(stage.getOrDefault("customObjects"))) if stage.isDefined("customObjects") else {}


class PredictionParams(HasFeaturesCol, HasPredictionCol):  # type: ignore[misc]
    """What a model needs to predict."""

    featuresCol: Param[Any] = _param(
        "featuresCol", "column of the model's input; a list for several inputs, or a dict by name", to_names
    )
    predictBatchSize: Param[int] = _param(
        "predictBatchSize",
        "rows that the model takes at once to predict; unset: as many as suit the processor",
        positive_integer,
    )
    preprocess: Param[Any] = _param(
        "preprocess",
        "function of the columns of a minibatch that makes what the model takes, as in DistributedTrainer",
        to_preprocess,
    )
    padTo: Param[Any] = _param(
        "padTo",
        'length to which rows of different lengths are filled up: a number, "longest", a list to round up '
        "to, a Padding, or a dict of these by column",
        to_pad_to,
    )
    customObjects: Param[Any] = _param(
        "customObjects",
        "classes and functions that the model names, by name, where they are not registered with Keras",
        to_custom_objects,
    )


class TrainingParams(HasLabelCol, HasWeightCol, HasValidationIndicatorCol):  # type: ignore[misc]
    """What an estimator needs to train. The words are those of `DistributedTrainer`."""

    model: Param[keras.Model] = _param("model", "the Keras model to train; it is left as it is", to_model)
    labelCol: Param[Any] = _param(
        "labelCol", "column of the labels; a list for several outputs, or a dict by name", to_names
    )
    algorithm: Param[Any] = _param(
        "algorithm", "the distributed optimizer: a rule of distkeras.algorithms, or its name", to_algorithm
    )
    communicationWindow: Param[int] = _param(
        "communicationWindow",
        "minibatch steps between two exchanges of a worker, instead of the rule's own",
        positive_integer,
    )
    workerOptimizer: Param[Any] = _param(
        "workerOptimizer",
        "the Keras optimizer inside each worker; unset: the one that the model is compiled with",
        to_optimizer,
    )
    learningRate: Param[float] = _param(
        "learningRate", "learning rate of workerOptimizer, instead of its own", finite
    )
    loss: Param[Any] = _param(
        "loss", "as keras.Model.compile takes it; unset: the one that the model is compiled with", to_form
    )
    metrics: Param[Any] = _param("metrics", "as keras.Model.compile takes them", to_metrics)
    lossWeights: Param[Any] = _param("lossWeights", "as keras.Model.compile takes them", serialized)
    classWeight: Param[dict[int, float]] = _param(
        "classWeight", "a number by class index, by which the loss of its rows is weighed", to_class_weight
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
        "compression", "how workers compress their messages: a name such as int8, or a codec", to_compression
    )
    overlap: Param[bool] = _param(
        "overlap", "train the next window while one is exchanged", TypeConverters.toBoolean
    )
    server: Param[Any] = _param("server", "where the parameter server listens: ServerOptions", to_server)
    verbose: Param[Any] = _param(
        "verbose", "0: silent; 1: a progress bar; auto: a bar in a terminal or a notebook", to_verbose
    )
    trainerOptions: Param[Any] = _param(
        "trainerOptions",
        "further arguments of distkeras.DistributedTrainer, by their names there",
        to_options,
    )


class ClassifierParams(HasProbabilityCol, HasThresholds, HasRawPredictionCol):  # type: ignore[misc]
    """What classifiers and their models have beside."""

    thresholds: Param[list[float]] = _param(
        "thresholds",
        "a threshold for every class: the class of the largest probability / threshold is predicted; one may "
        "be 0; unset: all alike",
        to_thresholds,
    )

    fromLogits: Param[bool] = _param(
        "fromLogits",
        "whether the model gives logits rather than probabilities; an estimator's default: as the loss says",
        TypeConverters.toBoolean,
    )
