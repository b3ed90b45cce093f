"""Regressors with the same column as Spark's own, so that Spark's evaluators can evaluate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import keras
from pyspark.ml.linalg import Vector
from pyspark.ml.regression import RegressionModel, Regressor
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import quoted
from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.model import EvaluatedModel, KerasModel
from distkeras.ml.params import accessors, by_name
from distkeras.ml.summary import RegressionSummary, RegressionTrainingSummary
from distkeras.transformers.base import value_of
from distkeras.worker.signature import model_signature

if TYPE_CHECKING:
    from distkeras.ml.keywords import EstimatorParams


@accessors
class KerasRegressionModel(EvaluatedModel[RegressionSummary], RegressionModel):  # type: ignore[misc]
    """Adds the model's output, one number, as `predictionCol`, a double.

    It is a `pyspark.ml.PredictionModel`: `predict` takes one vector, and `evaluate` evaluates it on rows.

    Args:
        model: a built Keras model with one output of one unit.
        **params: Params by name. An empty `predictionCol` adds no column.
    """

    _evaluation = RegressionSummary
    _training_evaluation = RegressionTrainingSummary

    def _transform(self, dataset: DataFrame) -> DataFrame:
        _check_unit(value_of(self, "model"))
        name = self.getOrDefault("predictionCol")
        predicted = self._predicted(dataset, name, "scalar")
        return predicted.withColumn(name, F.col(quoted(name)).cast("double")) if name else predicted

    def predict(self, value: Vector) -> float:
        """Return the prediction for one row, a vector or an array of numbers, on the driver.

        Raises:
            ValueError: `value` does not fill the model's input, or the model has several inputs.
        """
        _check_unit(value_of(self, "model"))
        return float(self._output_of_row(value)[0])


@accessors
class KerasRegressor(KerasEstimator, Regressor):  # type: ignore[misc]
    """A `KerasEstimator` for regression; `fit` returns a `KerasRegressionModel`. A `pyspark.ml.Predictor`.

    Args:
        **params: the Params of `KerasEstimator`. Default of `loss`: mean squared error, with
            the mean absolute error as metric.

    Raises:
        ValueError: the model does not have one output of one unit; else as `KerasEstimator`.
        TypeError: as `KerasEstimator`.
    """

    _model_class: ClassVar[type[KerasModel]] = KerasRegressionModel

    @by_name
    def __init__(self, **params: Unpack[EstimatorParams]) -> None:
        given = self._input_kwargs
        super().__init__()
        self.setParams(**given)

    def _fit(self, dataset: DataFrame) -> KerasModel:
        _check_unit(value_of(self, "model"))  # Before the training, since `transform` would refuse it later.
        return super()._fit(dataset)

    def _compile_defaults(self, model: keras.Model) -> dict[str, Any]:
        return {"loss": "mse", "metrics": ["mae"]}


def _check_unit(model: keras.Model) -> None:
    """Raise ValueError unless the model outputs one number per row."""
    _, outputs = model_signature(model)
    shapes = [spec.shape for spec in outputs]
    if len(shapes) != 1 or shapes[0] is None or any(length != 1 for length in shapes[0]):
        raise ValueError(
            "Expected a model with one output of one unit; for other models use KerasEstimator. "
            f"Received: outputs of shape {shapes} per row"
        )
