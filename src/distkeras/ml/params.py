"""The Params of the estimators and their models."""

# ruff: noqa: N815 (Params are named as Spark names its own)
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, cast

import keras
from pyspark import keyword_only
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
    to_callbacks,
    to_class_weight,
    to_compression,
    to_custom_objects,
    to_form,
    to_metrics,
    to_model,
    to_monitor,
    to_names,
    to_optimizer,
    to_options,
    to_overlap,
    to_pad_to,
    to_place,
    to_placement,
    to_preprocess,
    to_resources,
    to_resume,
    to_server,
    to_share,
    to_stop,
    to_thresholds,
    to_verbose,
)
from distkeras.ml.serialization import deserialized, serialized
from distkeras.transformers.base import finite, positive_integer

P = TypeVar("P", bound=type[Params])
Arguments = ParamSpec("Arguments")


def by_name(init: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Return `init` as Spark's `keyword_only` makes it, with its types: `_input_kwargs` has the arguments."""
    return cast(Callable[Arguments, None], keyword_only(init))


def _param(name: str, doc: str, converter: Callable[[Any], Any]) -> Any:
    return Param(Params._dummy(), name, doc, converter)


def set_given(stage: Params, given: Mapping[str, Any]) -> None:
    """Set the given Params of `stage` by name; None leaves a Param unchanged.

    Raises:
        TypeError: the stage has no such Param, or the value has the wrong type.
        ValueError: a value is out of range.
    """
    for name in given:
        if not stage.hasParam(name):
            names = sorted(param.name for param in stage.params)
            raise TypeError(f"{type(stage).__name__} has no Param {name!r}. Expected names from {names}")
    stage._set(**{name: value for name, value in given.items() if value is not None})


def accessors(cls: P) -> P:
    """Add a `getX` and a `setX` to `cls` for every Param; getters return objects, not their saved forms."""
    return _accessors(cls, deserialized)


def custom_objects_of(stage: Params) -> dict[str, Any]:
    """Return the classes and functions in `customObjects` of `stage`; empty if it is not set.

    Raises:
        ValueError: a saved class or function is not found here.
    """
    return dict(deserialized(stage.getOrDefault("customObjects"))) if stage.isDefined("customObjects") else {}


class PredictionParams(HasFeaturesCol, HasPredictionCol):  # type: ignore[misc]
    """Params for prediction."""

    featuresCol: Param[Any] = _param(
        "featuresCol", "column of the model's input; a list for several inputs, or a dict by name", to_names
    )
    predictBatchSize: Param[int] = _param(
        "predictBatchSize",
        "rows per call of the model in prediction; unset: chosen by the size of the model's layers",
        positive_integer,
    )
    preprocess: Param[Any] = _param(
        "preprocess",
        "function that makes the model's inputs from the columns of a minibatch, as in DistributedTrainer",
        to_preprocess,
    )
    padTo: Param[Any] = _param(
        "padTo",
        'length to which rows of different lengths are padded: a number, "longest", a list of lengths to '
        "round up to, a Padding, or a dict of these by column",
        to_pad_to,
    )
    customObjects: Param[Any] = _param(
        "customObjects",
        "classes and functions of the model that are not registered with Keras, by name",
        to_custom_objects,
    )


class TrainingParams(HasLabelCol, HasWeightCol, HasValidationIndicatorCol):  # type: ignore[misc]
    """Params for training. They correspond to the arguments of `DistributedTrainer`."""

    model: Param[keras.Model] = _param("model", "the Keras model to train; it is not changed", to_model)
    labelCol: Param[Any] = _param(
        "labelCol", "column of the labels; a list for several outputs, or a dict by name", to_names
    )
    algorithm: Param[Any] = _param(
        "algorithm", "the distributed optimizer, of distkeras.algorithms, or its name", to_algorithm
    )
    communicationWindow: Param[int] = _param(
        "communicationWindow",
        "minibatch steps between two exchanges of a worker; unset: the algorithm's own",
        positive_integer,
    )
    workerOptimizer: Param[Any] = _param(
        "workerOptimizer",
        "the Keras optimizer inside each worker; unset: the compiled optimizer",
        to_optimizer,
    )
    learningRate: Param[float] = _param(
        "learningRate", "learning rate of workerOptimizer; unset: its own", finite
    )
    loss: Param[Any] = _param("loss", "as keras.Model.compile takes it; unset: the compiled loss", to_form)
    metrics: Param[Any] = _param("metrics", "as keras.Model.compile takes them", to_metrics)
    lossWeights: Param[Any] = _param("lossWeights", "as keras.Model.compile takes them", serialized)
    classWeight: Param[dict[int, float]] = _param(
        "classWeight", "weight of the loss of a class's rows, by class index", to_class_weight
    )
    numWorkers: Param[int] = _param("numWorkers", "replicas, one per Spark task", positive_integer)
    batchSize: Param[int] = _param("batchSize", "rows in a minibatch of one worker", positive_integer)
    numEpoch: Param[int] = _param("numEpoch", "passes over the data", positive_integer)
    shuffle: Param[bool] = _param(
        "shuffle", "whether rows come in random order, a new one every epoch", TypeConverters.toBoolean
    )
    dropRemainder: Param[bool] = _param(
        "dropRemainder",
        "drop the last minibatch of a worker's epoch if it is not full",
        TypeConverters.toBoolean,
    )
    validationSplit: Param[float] = _param(
        "validationSplit",
        "part of the rows to validate on at the ends of epochs, in place of validationIndicatorCol",
        to_share,
    )
    validationFreq: Param[int] = _param(
        "validationFreq", "epochs from one validation to the next", positive_integer
    )
    validateOn: Param[str] = _param(
        "validateOn", 'where to validate: "driver", "workers", or "auto" by the size of the rows', to_place
    )
    callbacks: Param[Any] = _param(
        "callbacks",
        "Keras callbacks, of which each fit gets copies; or a function that returns them, which can be saved",
        to_callbacks,
    )
    stop: Param[dict[str, Any]] = _param(
        "stop", "when to end before the last epoch: distkeras.StopWhen, or a dict of its arguments", to_stop
    )
    run: Param[str] = _param(
        "run", "address of the directory for events and checkpoints", TypeConverters.toString
    )
    resume: Param[Any] = _param(
        "resume", 'whether to continue the run at that address: True, False or "auto"', to_resume
    )
    monitor: Param[Any] = _param(
        "monitor",
        "monitors of the training: a name such as tensorboard, a distkeras.monitor.Monitor, or a list of "
        "them",
        to_monitor,
    )
    stepsPerEpoch: Param[int] = _param(
        "stepsPerEpoch", "minibatches of a worker in an epoch; unset: a pass over its rows", positive_integer
    )
    seed: Param[int] = _param(
        "seed",
        "seed of shuffling and of the assignment of rows to workers; unset: random",
        TypeConverters.toInt,
    )
    quorum: Param[int] = _param(
        "quorum", "messages that complete a synchronous round; unset: one from every worker", positive_integer
    )
    compression: Param[Any] = _param(
        "compression", "how workers compress their messages: a name such as int8, or a codec", to_compression
    )
    overlap: Param[Any] = _param(
        "overlap",
        "train the next window while the last one is exchanged; a number: so many steps of this window",
        to_overlap,
    )
    server: Param[Any] = _param("server", "options of the parameter server: ServerOptions", to_server)
    serverPlacement: Param[Any] = _param(
        "serverPlacement",
        "where the parameter servers run: driver, executors, auto, or a Placement",
        to_placement,
    )
    minWorkers: Param[int] = _param(
        "minWorkers", "workers that must be present before an elastic training begins", positive_integer
    )
    maxWorkers: Param[int] = _param(
        "maxWorkers",
        "largest number of workers of an elastic training, instead of numWorkers",
        positive_integer,
    )
    resources: Param[Any] = _param(
        "resources", "cores, memory and GPUs of the workers: Resources", to_resources
    )
    verbose: Param[Any] = _param(
        "verbose",
        "0: silent; 1: a progress bar; 2: a line per epoch; auto: a bar in a terminal or a notebook",
        to_verbose,
    )
    trainerOptions: Param[Any] = _param(
        "trainerOptions",
        "further arguments of distkeras.DistributedTrainer, by name",
        to_options,
    )


class ClassifierParams(HasProbabilityCol, HasThresholds, HasRawPredictionCol):  # type: ignore[misc]
    """Further Params of classifiers and their models."""

    thresholds: Param[list[float]] = _param(
        "thresholds",
        "one threshold per class: the class with the largest probability / threshold is predicted; one may "
        "be 0; unset: all equal",
        to_thresholds,
    )

    fromLogits: Param[bool] = _param(
        "fromLogits",
        "whether the model outputs logits, not probabilities; an estimator's default: the loss's setting",
        TypeConverters.toBoolean,
    )
