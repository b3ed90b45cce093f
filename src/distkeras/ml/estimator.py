"""A Spark ML estimator that trains a Keras model with any distributed optimizer."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
from pyspark.ml import Estimator
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.algorithms import Algorithm
from distkeras.cluster.arrays import Roles
from distkeras.cluster.description import described
from distkeras.cluster.evaluation import evaluate
from distkeras.cluster.names import Table
from distkeras.cluster.validate import Names
from distkeras.lifecycle import StopWhen
from distkeras.ml.converters import AROUND, OPTIONS
from distkeras.ml.model import KerasModel
from distkeras.ml.params import (
    PredictionParams,
    TrainingParams,
    accessors,
    by_name,
    custom_objects_of,
    set_given,
)
from distkeras.ml.persistence import KerasReadable, KerasWritable
from distkeras.ml.serialization import deserialized
from distkeras.ml.summary import Training
from distkeras.monitor.monitors import Given
from distkeras.trainers import DistributedTrainer, Placement, Resources, ServerOptions
from distkeras.transformers.base import value_of
from distkeras.wire.codecs import Codec
from distkeras.worker.metric_states import named_values
from distkeras.worker.padding import PadTo


@accessors
class KerasEstimator(Estimator, TrainingParams, PredictionParams, KerasWritable, KerasReadable):  # type: ignore[misc]
    """Trains any Keras model with any distributed optimizer; `fit` returns a `KerasModel`.

    Every argument is a Param, with `getX` and `setX`. A Param that is not set has the default of
    `DistributedTrainer`, which also documents what happens when a worker fails. Several calls of `fit` may
    run at the same time (`CrossValidator(parallelism=2)`); each has its own parameter server.

    Args:
        model: any built Keras model; `fit` does not change it.
        algorithm: an algorithm of `distkeras.algorithms`, or its name. Default: `DynSGD()`, which works with
            any number of workers.
        communicationWindow: minibatch steps between two exchanges of a worker. Default: the algorithm's own.
        workerOptimizer: name or Keras optimizer. Default: the optimizer that the model is compiled with.
        learningRate: learning rate of `workerOptimizer`. Default: the optimizer's own.
        loss: as `keras.Model.compile` takes it. Default: the compiled loss.
        metrics: as `keras.Model.compile` takes them. Default: as in `DistributedTrainer`.
        lossWeights: as `keras.Model.compile` takes them.
        featuresCol: column of the model's input; a list for several inputs, or a dict by name.
        labelCol: column of the labels, in the same forms.
        predictionCol: column that the fitted model adds.
        weightCol: column of the weights of the rows' losses, one number per row.
        classWeight: a weight by class index, as in `keras.Model.fit`.
        validationIndicatorCol: boolean column; rows where it is true are not used for training. The fitted
            model has their loss and metrics in `validation_metrics`.
        validationSplit: part of the rows to validate on at the ends of epochs, in its place.
        validationFreq: epochs from one validation to the next.
        validateOn: as in `DistributedTrainer.train`.
        callbacks: Keras callbacks, which run on the driver; each `fit` gets copies. Or a function without
            arguments that returns them, which is saved with the estimator.
        stop: `distkeras.StopWhen`, or a dict of its arguments.
        run: address of a directory for events and checkpoints.
        resume: whether to continue the run at that address: True, False or "auto".
        monitor: what shows the training, as in `DistributedTrainer.train`. Names are saved with the
            estimator. Objects are the same for every `fit`, so for several at once give names.
        stepsPerEpoch: minibatches of a worker in an epoch.
        numWorkers: number of replicas; each is one Spark task. Default: 2.
        batchSize: rows in a minibatch of one worker. Default: 32.
        numEpoch: passes over the data. Default: 1.
        shuffle: whether to visit the rows in random order. Default: True.
        preprocess: as in `DistributedTrainer`; used for training, validation and the fitted model. Register
            it with Keras (`keras.saving.register_keras_serializable`) to save it.
        padTo: as in `DistributedTrainer`; used for training, validation and the fitted model.
        dropRemainder: as in `DistributedTrainer`.
        seed: seed of the shuffle. Default: a random seed.
        quorum: as in `DistributedTrainer`.
        compression: as in `DistributedTrainer`.
        overlap: as in `DistributedTrainer`.
        server: as in `DistributedTrainer`.
        serverPlacement: as `server_placement` in `DistributedTrainer`.
        minWorkers: as `min_workers` in `DistributedTrainer`.
        maxWorkers: as `max_workers` in `DistributedTrainer`; in place of `numWorkers`.
        resources: as in `DistributedTrainer`.
        verbose: 0 or False for silent, 1 or True for a progress bar, 2 for a line an epoch, "auto" for a bar
            in a terminal or a notebook.
        customObjects: classes and functions of the model that are not registered with Keras, by name. They
            are saved as the name of the module that defines them.
        trainerOptions: further arguments of `DistributedTrainer`, by name.
        predictBatchSize: rows per call of the fitted model.

    Raises:
        TypeError: a Param has the wrong type; from `fit`, as `DistributedTrainer`.
        ValueError: a Param is out of range; from `fit`: the model is missing, the validation column is
            missing or is true in no row or in every row, or a column that the fitted model adds exists
            already; else as `DistributedTrainer`.

    Example:
        ```python
        estimator = KerasEstimator(model=model, algorithm=ADAG(), workerOptimizer="adam", loss="mse")
        predicted = estimator.fit(df).transform(df)
        ```
    """

    _model_class: ClassVar[type[KerasModel]] = KerasModel

    @by_name
    def __init__(
        self,
        *,
        model: keras.Model | None = None,
        algorithm: Algorithm | str | None = None,
        communicationWindow: int | None = None,
        workerOptimizer: str | keras.optimizers.Optimizer | None = None,
        learningRate: float | None = None,
        loss: Any = None,
        metrics: Any = None,
        lossWeights: Any = None,
        featuresCol: Names | None = None,
        labelCol: Names | None = None,
        predictionCol: str | None = None,
        weightCol: str | None = None,
        classWeight: Mapping[int, float] | None = None,
        validationIndicatorCol: str | None = None,
        validationSplit: float | None = None,
        validationFreq: int | None = None,
        validateOn: str | None = None,
        callbacks: Any = None,
        stop: StopWhen | Mapping[str, Any] | None = None,
        run: str | None = None,
        resume: bool | str | None = None,
        monitor: Given = None,
        stepsPerEpoch: int | None = None,
        numWorkers: int | None = None,
        batchSize: int | None = None,
        numEpoch: int | None = None,
        shuffle: bool | None = None,
        preprocess: Callable[..., Any] | None = None,
        padTo: PadTo | None = None,
        dropRemainder: bool | None = None,
        seed: int | None = None,
        quorum: int | None = None,
        compression: str | Codec | None = None,
        overlap: bool | int | None = None,
        server: ServerOptions | None = None,
        serverPlacement: str | Placement | None = None,
        minWorkers: int | None = None,
        maxWorkers: int | None = None,
        resources: Resources | None = None,
        verbose: bool | int | str | None = None,
        customObjects: Mapping[str, Any] | None = None,
        trainerOptions: Mapping[str, Any] | None = None,
        predictBatchSize: int | None = None,
    ) -> None:
        super().__init__()
        self._begin(self._input_kwargs)

    def _begin(self, given: dict[str, Any]) -> None:
        """Set the defaults and the given Params."""
        self._setDefault(
            featuresCol="features",
            labelCol="label",
            predictionCol="prediction",
            numWorkers=2,
            batchSize=32,
            numEpoch=1,
            shuffle=True,
        )
        self._setDefault(algorithm="DynSGD")
        self.setParams(**given)

    def setParams(self, **params: Any) -> KerasEstimator:  # noqa: N802 (Spark's own name)
        """Set several Params by name and return self; None leaves a Param unchanged."""
        set_given(self, params)
        return self

    def _fit(self, dataset: DataFrame) -> KerasModel:
        # Check before the training what `transform` would refuse after it.
        self._model_class._of(value_of(self, "model"), self)._check_new(dataset)
        train, validation = self._split(dataset)
        trainer = self._trainer()
        around = self._around()
        if validation is not None and "validation_split" in around:
            raise ValueError(
                "Expected `validationIndicatorCol` or `validationSplit`, not both. Received: "
                f"validationIndicatorCol={self.getOrDefault('validationIndicatorCol')!r}, "
                f"validationSplit={around['validation_split']!r}"
            )
        if around and validation is not None:
            around["validation_data"] = validation
        trained = trainer.train(train, shuffle=self.getOrDefault("shuffle"), **around)
        model = self._model_class._of(trained, self)
        model.history = trainer.get_history()
        seconds, updates = trainer.get_training_time(), int(trainer.num_updates)
        model._training = Training(train, model.history, seconds, updates)
        if validation is not None:
            results = evaluate(
                trained,
                validation,
                Roles(trainer.features_col, trainer.label_col, trainer.sample_weight_col),
                num_partitions=trainer.num_workers,
                batch_size=max(256, trainer.batch_size),
                feeding=trainer.feeding,
                custom_objects=custom_objects_of(self),
            )
            model.validation_metrics = named_values(results)
        return model

    def _split(self, dataset: DataFrame) -> tuple[DataFrame, DataFrame | None]:
        """Return the rows for training and those for validation."""
        if not self.isDefined("validationIndicatorCol"):
            return dataset, None
        name = self.getOrDefault("validationIndicatorCol")
        table = Table(dataset)
        field, path = table.field(name, "validationIndicatorCol")
        if not isinstance(field.dataType, T.BooleanType):
            raise TypeError(
                f"Expected booleans in `validationIndicatorCol`, true for the validation rows. "
                f"Received: column {name!r} of {field.dataType.simpleString()}"
            )
        held = F.coalesce(F.col(path), F.lit(False))
        train, validation = (table.named(table.frame.where(rows)) for rows in (~held, held))
        for rows, purpose, where in ((validation, "validate with", "no"), (train, "train on", "every")):
            with described(rows.sparkSession, "checks for training and validation rows"):
                is_empty = rows.isEmpty()
            if is_empty:
                raise ValueError(
                    f"Expected some rows to {purpose}. Received: `validationIndicatorCol`={name!r} is true "
                    f"in {where} row."
                )
        return train, validation

    def _trainer(self) -> DistributedTrainer:
        model: keras.Model = value_of(self, "model")
        options = {} if model.compiled else self._compile_defaults(model)
        if self.isDefined("trainerOptions"):
            options |= deserialized(self.getOrDefault("trainerOptions"))
        for name, argument in OPTIONS.items():
            if self.isDefined(name):
                options[argument] = deserialized(self.getOrDefault(name))
        return DistributedTrainer(model, self._algorithm(), self._optimizer(), **options)

    def _around(self) -> dict[str, Any]:
        """Return the arguments of `DistributedTrainer.train` for what goes around the training."""
        options = {
            argument: deserialized(self.getOrDefault(name))
            for name, argument in AROUND.items()
            if self.isDefined(name)
        }
        if self.isDefined("stop"):
            options["stop"] = StopWhen(**self.getOrDefault("stop"))
        if self.isDefined("callbacks"):
            given = deserialized(self.getOrDefault("callbacks"))
            # Several calls of `fit` may run at once, and each must begin with callbacks as they were given.
            options["callbacks"] = given() if callable(given) else copy.deepcopy(given)
        return options

    def _compile_defaults(self, model: keras.Model) -> dict[str, Any]:
        """Return arguments of `keras.Model.compile` for a model that is not compiled. Default: none."""
        return {}

    def _algorithm(self) -> Algorithm:
        algorithm: Algorithm = deserialized(self.getOrDefault("algorithm"))
        if self.isDefined("communicationWindow"):
            algorithm = dataclasses.replace(
                algorithm, communication_window=self.getOrDefault("communicationWindow")
            )
        return algorithm

    def _optimizer(self) -> str | keras.optimizers.Optimizer | None:
        given = (
            deserialized(self.getOrDefault("workerOptimizer")) if self.isDefined("workerOptimizer") else None
        )
        if not self.isDefined("learningRate"):
            return given
        model = value_of(self, "model")
        compiled = model.optimizer if model.compiled else None
        optimizer = compiled if given is None else keras.optimizers.get(given)
        if optimizer is None:
            raise ValueError(
                "Expected a `workerOptimizer` or a compiled model, whose rate `learningRate` replaces. "
                f"Received: only learningRate={self.getOrDefault('learningRate')!r}"
            )
        config = optimizer.get_config() | {"learning_rate": self.getOrDefault("learningRate")}
        return type(optimizer).from_config(config)
