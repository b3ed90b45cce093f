"""Classifiers whose columns are those of Spark's own, so that Spark's evaluators can judge them."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from pyspark import keyword_only
from pyspark.ml.functions import array_to_vector
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import check_new, quoted
from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.model import KerasModel
from distkeras.ml.params import ClassifierParams, accessors, set_given
from distkeras.transformers.base import let, value_of
from distkeras.worker.columns import TensorSpec
from distkeras.worker.signature import model_signature

LEAST = 1e-38
"""Probabilities are held at least this far from 0 before their logarithm is taken."""


@accessors
class KerasClassificationModel(KerasModel, ClassifierParams):
    """Adds what Spark's classifiers add: raw predictions, probabilities and the predicted class.

    For a model with one output unit, the probability of class 1, all columns are of the classes 0 and 1.

    - `rawPredictionCol`, a vector: the logits; of a model that gives probabilities, their logarithms (of one
      unit, the log-odds).
    - `probabilityCol`, a vector: softmax or sigmoid of the logits; or the model's output as it is.
    - `predictionCol`, a double: the class of the largest probability, of several equal ones the first; NaN
      where one of them is NaN.

    Args:
        model: a built Keras model with one output of one axis.
        **params: Params by name. An empty column name leaves that column out.
    """

    def __init__(self, model: keras.Model | None = None, **params: Any) -> None:
        super().__init__()
        self._setDefault(probabilityCol="probability", rawPredictionCol="rawPrediction", fromLogits=False)
        set_given(self, {"model": model, **params})

    def _transform(self, dataset: DataFrame) -> DataFrame:
        units = _units(value_of(self, "model"))
        names = [self.getOrDefault(f"{what}Col") for what in ("rawPrediction", "probability", "prediction")]
        check_new(
            [name for name in names if name], dataset, "rawPredictionCol, probabilityCol, predictionCol"
        )
        whole = "_".join(("distkeras", self.uid))
        predicted = self._predicted(dataset, whole, "array")
        output = F.transform(F.col(quoted(whole)), lambda value: value.cast("double"))
        raw, probability = _scores(output, units, self.getOrDefault("fromLogits"))
        columns = (array_to_vector(raw), array_to_vector(probability), let(probability, _largest))
        new = {name: column for name, column in zip(names, columns, strict=True) if name}
        return predicted.withColumns(new).drop(whole)


@accessors
class KerasClassifier(KerasEstimator, ClassifierParams):
    """A `KerasEstimator` for classes 0, 1, 2 and so on; `fit` returns a `KerasClassificationModel`.

    Args:
        probabilityCol: column that the fitted model adds. Default: "probability".
        rawPredictionCol: column that the fitted model adds. Default: "rawPrediction".
        fromLogits: whether the model gives logits. Default: as the loss says.
        **params: those of `KerasEstimator`. Default of `loss`: binary crossentropy where the model has one
            output unit, else sparse categorical crossentropy, of class indices; with `fromLogits`, of logits.

    Raises:
        ValueError: from `fit`: the model has not one output of one axis; else as `KerasEstimator`.
        TypeError: as `KerasEstimator`.

    Example:
        ```python
        model = KerasClassifier(model=network, workerOptimizer="adam", numWorkers=4).fit(df)
        accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(model.transform(df))
        ```
    """

    _model_class: ClassVar[type[KerasModel]] = KerasClassificationModel

    @keyword_only  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        probabilityCol: str | None = None,
        rawPredictionCol: str | None = None,
        fromLogits: bool | None = None,
        **params: Any,
    ) -> None:
        given = self._input_kwargs
        super().__init__()
        self._setDefault(probabilityCol="probability", rawPredictionCol="rawPrediction")
        self.setParams(**given)

    def _fit(self, dataset: DataFrame) -> KerasModel:
        _units(value_of(self, "model"))  # Else its columns would be refused after the training.
        model = super()._fit(dataset)
        if not self.isDefined("fromLogits"):
            model._set(fromLogits=_of_logits(model.getModel().loss))
        return model

    def _compile_defaults(self, model: keras.Model) -> dict[str, Any]:
        logits = self.isDefined("fromLogits") and bool(self.getOrDefault("fromLogits"))
        if _units(model) == 1:
            return {"loss": keras.losses.BinaryCrossentropy(from_logits=logits)}
        return {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=logits)}


def _of_logits(loss: Any) -> bool:
    # Keras's losses keep it among the arguments of their function.
    return bool(getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits", False)))


def _units(model: keras.Model) -> int:
    """Return the units of the only output.

    Raises:
        ValueError: there are more, or they are no vector.
    """
    _, outputs = model_signature(model)
    shapes = [spec.shape for spec in outputs]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 1 or shapes[0][0] is None:
        raise ValueError(
            "Expected a model with one output of one axis: a number for every class, or one number. "
            f"Received: outputs of shape {[_shape(spec) for spec in outputs]}"
        )
    return shapes[0][0]


def _shape(spec: TensorSpec) -> str:
    return "unknown" if spec.shape is None else str((None, *spec.shape))


def _scores(output: Column, units: int, logits: bool) -> tuple[Column, Column]:
    """Return raw predictions and probabilities, arrays of double, of the model's output."""
    if units == 1:
        return _two_classes(output[0], logits)
    if logits:
        return output, let(output, _softmax)
    return F.transform(output, _log), output


def _two_classes(value: Column, logits: bool) -> tuple[Column, Column]:
    one = 1 / (1 + F.exp(-value)) if logits else value
    odds = value if logits else _log(value) - _log(1 - value)
    return F.array(-odds, odds), F.array(1 - one, one)


def _softmax(logits: Column) -> Column:
    largest = F.array_max(logits)
    powers = F.transform(logits, lambda value: F.exp(value - largest))
    return let(
        powers,
        lambda parts: F.transform(
            parts, lambda part: part / F.aggregate(parts, F.lit(0.0), lambda total, x: total + x)
        ),
    )


def _log(value: Column) -> Column:
    return F.log(F.greatest(value, F.lit(LEAST)))


def _largest(probability: Column) -> Column:
    """The index of the largest, as a double."""
    best = F.array_max(probability)  # To Spark, NaN is the greatest number.
    place = F.array_position(probability, best) - 1
    return F.when(F.isnan(best), best).otherwise(place.cast("double"))
