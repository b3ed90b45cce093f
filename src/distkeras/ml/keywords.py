"""The Params that estimators and models take by name, for type checkers, which then find a misspelt one.

A test compares them with the arguments of `KerasEstimator` and `KerasClassifier`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import keras

    from distkeras.algorithms import Algorithm
    from distkeras.cluster.validate import Names
    from distkeras.lifecycle import StopWhen
    from distkeras.monitor.monitors import Given
    from distkeras.trainers import Placement, Resources, ServerOptions
    from distkeras.wire.codecs import Codec
    from distkeras.worker.padding import PadTo


class StageParams(TypedDict, total=False):
    """The Params of a model; of an estimator too, without its model."""

    algorithm: Algorithm | str | None
    communicationWindow: int | None
    workerOptimizer: str | keras.optimizers.Optimizer | None
    learningRate: float | None
    loss: Any
    metrics: Any
    lossWeights: Any
    featuresCol: Names | None
    labelCol: Names | None
    predictionCol: str | None
    weightCol: str | None
    classWeight: Mapping[int, float] | None
    validationIndicatorCol: str | None
    validationSplit: float | None
    validationFreq: int | None
    validateOn: str | None
    callbacks: Any
    stop: StopWhen | Mapping[str, Any] | None
    run: str | None
    resume: bool | str | None
    monitor: Given
    stepsPerEpoch: int | None
    numWorkers: int | None
    batchSize: int | None
    numEpoch: int | None
    shuffle: bool | None
    preprocess: Callable[..., Any] | None
    padTo: PadTo | None
    dropRemainder: bool | None
    seed: int | None
    quorum: int | None
    compression: str | Codec | None
    overlap: bool | int | None
    server: ServerOptions | None
    serverPlacement: str | Placement | None
    minWorkers: int | None
    maxWorkers: int | None
    resources: Resources | None
    verbose: bool | int | str | None
    customObjects: Mapping[str, Any] | None
    trainerOptions: Mapping[str, Any] | None
    predictBatchSize: int | None


class EstimatorParams(StageParams, total=False):
    """The Params of `KerasEstimator`."""

    model: keras.Model | None


class ClassificationParams(StageParams, total=False):
    """The Params of a model that classifies."""

    probabilityCol: str | None
    rawPredictionCol: str | None
    fromLogits: bool | None
    thresholds: list[float] | None
