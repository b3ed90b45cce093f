"""A trained Keras model as a stage of Spark ML."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, cast

import keras
import numpy as np
import numpy.typing as npt
from pyspark.ml import Model
from pyspark.ml.param.shared import Params
from pyspark.sql import DataFrame

from distkeras.cluster.names import Table
from distkeras.cluster.outputs import output_names
from distkeras.cluster.source import check_new
from distkeras.ml.one_row import num_features, output_of_row
from distkeras.ml.params import PredictionParams, TrainingParams, accessors, custom_objects_of, set_given
from distkeras.ml.persistence import KerasReadable, KerasWritable
from distkeras.ml.serialization import deserialized
from distkeras.ml.summary import Columns, Summary, Training, TrainingSummary
from distkeras.predictors import ModelPredictor, Output
from distkeras.trainers.history import History
from distkeras.transformers.base import value_of
from distkeras.worker.signature import model_signature

S = TypeVar("S", bound=Summary)


@accessors
class KerasModel(Model, TrainingParams, PredictionParams, KerasWritable, KerasReadable):  # type: ignore[misc]
    """Adds the outputs of a Keras model to a DataFrame. `KerasEstimator.fit` makes it.

    It has the Params of its estimator, so that it says how it was trained; those of prediction count. The
    Keras model itself is `model.getModel()`; loaded from a file, it is not compiled, so that it predicts
    where loss and metrics of the user's are not known.

    Attributes:
        history: the windows of the training, as trainers tell them; empty in a model that was loaded.
        summary: those, and more of how it was trained; `hasSummary` says whether it is known.
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
    _added: ClassVar[tuple[str, ...]] = ("predictionCol",)
    """The Params that name the columns that `transform` adds."""

    def __init__(self, model: keras.Model | None = None, **params: Any) -> None:
        super().__init__()
        self._setDefault(featuresCol="features", predictionCol="prediction")
        set_given(self, {"model": model, **params})
        self.history = History()
        self.validation_metrics: dict[str, float] = {}
        self._training: Training | None = None
        self._summary: TrainingSummary | None = None

    @classmethod
    def _of(cls, trained: keras.Model, estimator: Params) -> KerasModel:
        """Return the model that `estimator` trained."""
        model = cls()
        # The uid is shared: params of a grid name the estimator's.
        model._resetUid(estimator.uid)
        estimator._copyValues(model)
        model._set(model=trained)
        return model

    @property
    def numFeatures(self) -> int:  # noqa: N802 (Spark's own name)
        """Numbers in a row of the input; -1 where there are several inputs, or its shape is not known."""
        return num_features(value_of(self, "model"))

    @property
    def hasSummary(self) -> bool:  # noqa: N802 (Spark's own name)
        """Whether `summary` knows how this model was trained: not of one that was loaded."""
        return self._training is not None

    @property
    def summary(self) -> TrainingSummary:
        """How this model was trained.

        Raises:
            RuntimeError: it was not trained here: it was loaded, or made of a Keras model.
        """
        if self._training is None:
            raise RuntimeError(
                f"No training summary available for this {type(self).__name__}: expected one that `fit` "
                "returned, for a summary is not saved. `evaluate` judges it on rows."
            )
        if self._summary is None:  # Made once: it keeps what it has counted.
            self._summary = self._summary_of(self._training)
        return self._summary

    def _summary_of(self, training: Training) -> TrainingSummary:
        return TrainingSummary(training)

    def _check_new(self, dataset: DataFrame) -> None:
        """Raise ValueError where a column that `transform` adds is there already, or would be twice."""
        _, outputs = model_signature(value_of(self, "model"))
        given = [self.getOrDefault(param) for param in self._added]
        names = [name for some in given if some for name in output_names(some, outputs)]
        check_new(names, dataset, ", ".join(self._added))

    def _output_of_row(self, value: Any) -> npt.NDArray[np.float64]:
        """Return the output of the model for one row, on the driver.

        Raises:
            ValueError: minibatches are made by `preprocess` or `padTo`, or as `output_of_row`.
        """
        for param in ("preprocess", "padTo"):
            if self.isDefined(param):
                raise ValueError(
                    f"Expected a model without `{param}`, to predict one vector: use `transform`. "
                    f"Received: {param}={self.getOrDefault(param)!r}"
                )
        return output_of_row(value_of(self, "model"), value)

    def _evaluated(self, dataset: DataFrame) -> tuple[DataFrame, Columns]:
        """Return the predictions for `dataset`, and the columns by which a summary judges them."""
        names = {param: self.getOrDefault(param) or f"{param}_{self.uid}" for param in self._added}
        named = self.copy({self.getParam(param): name for param, name in names.items()})
        weight = self.getOrDefault("weightCol") if self.isDefined("weightCol") else None
        label = self.getOrDefault("labelCol")
        for name, param in ((label, "labelCol"), (weight, "weightCol")):
            if name is not None:
                Table(dataset).field(name, param)
        raw = names.get("rawPredictionCol", "")
        return named.transform(dataset), Columns(label, names["predictionCol"], weight, raw)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        return self._predicted(dataset, self.getOrDefault("predictionCol"), "array")

    def _predicted(self, dataset: DataFrame, name: str, output: Output) -> DataFrame:
        if not name:
            return dataset
        options = {"preprocess": "preprocess", "pad_to": "padTo", "batch_size": "predictBatchSize"}
        given = {
            argument: deserialized(self.getOrDefault(param))
            for argument, param in options.items()
            if self.isDefined(param)
        }
        return ModelPredictor(
            value_of(self, "model"),
            self.getOrDefault("featuresCol"),
            name,
            output=output,
            **given,
            custom_objects=custom_objects_of(self),
        ).predict(dataset)


class EvaluatedModel(KerasModel, Generic[S]):
    """Abstract: a model of one prediction for one label, which can be judged on rows."""

    _evaluation: ClassVar[type[Summary]]
    _training_evaluation: ClassVar[type[Any]]

    def evaluate(self, dataset: DataFrame) -> S:
        """Return how well the model does on `dataset`.

        Args:
            dataset: rows with features, labels, and weights where `weightCol` is set.

        Raises:
            ValueError: a column is missing, or there already.
        """
        return cast(S, self._evaluation(*self._evaluated(dataset)))

    def _summary_of(self, training: Training) -> TrainingSummary:
        summary: TrainingSummary = self._training_evaluation(training, *self._evaluated(training.rows))
        return summary
