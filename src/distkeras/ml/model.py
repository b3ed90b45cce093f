"""A trained Keras model as a Spark ML stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, Unpack, cast

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

if TYPE_CHECKING:
    from distkeras.ml.keywords import StageParams

S = TypeVar("S", bound=Summary)


@accessors
class KerasModel(Model, TrainingParams, PredictionParams, KerasWritable, KerasReadable):  # type: ignore[misc]
    """Adds the outputs of a Keras model to a DataFrame. `KerasEstimator.fit` returns it.

    It keeps all Params of its estimator as a record of the training; only those for prediction have an
    effect. `model.getModel()` returns the Keras model. A model that is loaded from a file is not compiled, so
    that it can predict without the user's loss and metrics.

    Attributes:
        history: the windows of the training, as in a trainer's history; empty for a loaded model.
        summary: the history and further facts of the training; `hasSummary` is False if there is none.
        validation_metrics: loss and metrics of the validation rows of `validationIndicatorCol`.

    Args:
        model: a built Keras model.
        **params: `featuresCol`, `predictionCol` and others by name. An empty `predictionCol` adds no column.

    Example:
        ```python
        predicted = KerasModel(model, featuresCol="x").transform(df)
        ```
    """

    _compiled: ClassVar[bool] = False
    _added: ClassVar[tuple[str, ...]] = ("predictionCol",)
    """The Params that name the columns that `transform` adds."""

    def __init__(self, model: keras.Model | None = None, **params: Unpack[StageParams]) -> None:
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
        # The model shares the estimator's uid, because the Params of a grid refer to it.
        model._resetUid(estimator.uid)
        estimator._copyValues(model)
        model._set(model=trained)
        return model

    @property
    def numFeatures(self) -> int:  # noqa: N802 (Spark's own name)
        """How many numbers a row of the input has; -1 if there are several inputs or the shape is unknown."""
        return num_features(value_of(self, "model"))

    @property
    def hasSummary(self) -> bool:  # noqa: N802 (Spark's own name)
        """Whether this model has a training summary; a loaded model has none."""
        return self._training is not None

    @property
    def summary(self) -> TrainingSummary:
        """The training summary of this model.

        Raises:
            RuntimeError: the model was loaded, or created from a Keras model.
        """
        if self._training is None:
            raise RuntimeError(
                f"No training summary available for this {type(self).__name__}: expected a model that `fit` "
                "returned. A summary is not saved. To evaluate the model on rows, use `evaluate`."
            )
        if self._summary is None:  # Created once, because it caches its metrics.
            self._summary = self._summary_of(self._training)
        return self._summary

    def _summary_of(self, training: Training) -> TrainingSummary:
        return TrainingSummary(training)

    def _check_new(self, dataset: DataFrame) -> None:
        """Raise ValueError if a column that `transform` adds exists already, or would be added twice."""
        _, outputs = model_signature(value_of(self, "model"))
        given = [self.getOrDefault(param) for param in self._added]
        names = [name for some in given if some for name in output_names(some, outputs)]
        check_new(names, dataset, ", ".join(self._added))

    def _output_of_row(self, value: Any) -> npt.NDArray[np.float64]:
        """Return the output of the model for one row, on the driver.

        Raises:
            ValueError: `preprocess` or `padTo` is set; else as `output_of_row`.
        """
        for param in ("preprocess", "padTo"):
            if self.isDefined(param):
                raise ValueError(
                    f"Expected a model without `{param}`, to predict one vector. Use `transform` instead. "
                    f"Received: {param}={self.getOrDefault(param)!r}"
                )
        return output_of_row(value_of(self, "model"), value)

    def _evaluated(self, dataset: DataFrame) -> tuple[DataFrame, Columns]:
        """Return the predictions for `dataset`, and the columns that a summary needs."""
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
    """Abstract: a model with one prediction for one label, which can be evaluated on rows."""

    _evaluation: ClassVar[type[Summary]]
    _training_evaluation: ClassVar[type[Any]]

    def evaluate(self, dataset: DataFrame) -> S:
        """Return the model's evaluation metrics on `dataset`.

        Args:
            dataset: rows with features and labels, and with weights if `weightCol` is set.

        Raises:
            ValueError: a column is missing, or a column to add exists already.
        """
        return cast(S, self._evaluation(*self._evaluated(dataset)))

    def _summary_of(self, training: Training) -> TrainingSummary:
        summary: TrainingSummary = self._training_evaluation(training, *self._evaluated(training.rows))
        return summary
