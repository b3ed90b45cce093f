"""Regressors whose column is that of Spark's own, so that Spark's evaluators can judge them."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from pyspark import keyword_only
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.model import KerasModel
from distkeras.ml.params import accessors


@accessors
class KerasRegressionModel(KerasModel):
    """Adds the model's one number as `predictionCol`, a double.

    Args:
        model: a built Keras model with one output of one unit.
        **params: Params by name.
    """

    def _transform(self, dataset: DataFrame) -> DataFrame:
        name = self.getOrDefault("predictionCol")
        predicted = self._predicted(dataset, name, "scalar")
        return predicted.withColumn(name, F.col(f"`{name}`").cast("double"))


@accessors
class KerasRegressor(KerasEstimator):
    """A `KerasEstimator` for numbers; `fit` returns a `KerasRegressionModel`.

    Args:
        **params: those of `KerasEstimator`. Default of `loss`: mean squared error, with
            the mean absolute error as metric.

    Raises:
        TypeError, ValueError: as `KerasEstimator`.
    """

    _model_class: ClassVar[type[KerasModel]] = KerasRegressionModel

    @keyword_only  # type: ignore[untyped-decorator]
    def __init__(self, **params: Any) -> None:
        given = self._input_kwargs
        super().__init__()
        self.setParams(**given)

    def _compile_defaults(self, model: keras.Model) -> dict[str, Any]:
        return {"loss": "mse", "metrics": ["mae"]}
