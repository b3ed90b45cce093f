"""A trained Keras model as a stage of Spark ML."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from pyspark.ml import Model
from pyspark.ml.param.shared import Params
from pyspark.sql import DataFrame

from distkeras.ml.described import alive
from distkeras.ml.params import PredictionParams, TrainingParams, accessors, set_given
from distkeras.ml.persistence import KerasReadable, KerasWritable
from distkeras.predictors import ModelPredictor, Output
from distkeras.trainers.history import History
from distkeras.transformers.base import value_of


@accessors
class KerasModel(Model, TrainingParams, PredictionParams, KerasWritable, KerasReadable):  # type: ignore[misc]
    """Adds the outputs of a Keras model to a DataFrame. `KerasEstimator.fit` makes it.

    It has the Params of its estimator, so that it says how it was trained; those of prediction count. The
    Keras model itself is `model.getModel()`; loaded from a file, it is not compiled, so that it predicts
    where loss and metrics of the user's are not known.

    Attributes:
        history: the windows of the training, as trainers tell them; empty in a model that was loaded.
        validation_metrics: loss and metrics of the rows that `validationIndicatorCol` held back.

    Args:
        model: a built Keras model, to use as it is.
        **params: `featuresCol`, `predictionCol` and others by name. An empty `predictionCol` adds no column.

    Example:
        ```python
        predicted = KerasModel(model, featuresCol="x").transform(df)
        ```
    """

    _compiled: ClassVar[bool] = False

    def __init__(self, model: keras.Model | None = None, **params: Any) -> None:
        super().__init__()
        self._setDefault(featuresCol="features", predictionCol="prediction")
        set_given(self, {"model": model, **params})
        self.history = History()
        self.validation_metrics: dict[str, float] = {}

    @classmethod
    def _of(cls, trained: keras.Model, estimator: Params) -> KerasModel:
        """Return the model that `estimator` trained."""
        model = cls()
        # The uid is shared: params of a grid name the estimator's.
        model._resetUid(estimator.uid)
        estimator._copyValues(model)
        model._set(model=trained)
        return model

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._predicted(dataset, self.getOrDefault("predictionCol"), "array")

    def _predicted(self, dataset: DataFrame, name: str, output: Output) -> DataFrame:
        if not name:
            return dataset
        options = {"preprocess": "preprocess", "pad_to": "padTo", "batch_size": "predictBatchSize"}
        given = {
            argument: alive(self.getOrDefault(param))
            for argument, param in options.items()
            if self.isDefined(param)
        }
        return ModelPredictor(
            value_of(self, "model"),
            self.getOrDefault("featuresCol"),
            name,
            output=output,
            **given,
        ).predict(dataset)
