"""Classifiers with the same columns as Spark's own, so that Spark's evaluators can evaluate them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Unpack

import keras
from pyspark.ml.classification import ProbabilisticClassificationModel, ProbabilisticClassifier
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector, Vector
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import quoted
from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.labels import check_whole
from distkeras.ml.model import EvaluatedModel, KerasModel
from distkeras.ml.params import ClassifierParams, accessors, by_name, set_given
from distkeras.ml.scores import Row, predicted_class, predicted_class_of_row, scores, scores_of_row
from distkeras.ml.serialization import deserialized
from distkeras.ml.summary import ClassificationSummary, ClassificationTrainingSummary
from distkeras.model.losses import loss_names
from distkeras.transformers.base import value_of
from distkeras.worker.signature import model_signature
from distkeras.worker.tensor_spec import TensorSpec

if TYPE_CHECKING:
    from distkeras.ml.keywords import ClassificationParams, EstimatorParams


@accessors
class KerasClassificationModel(
    EvaluatedModel[ClassificationSummary],
    ClassifierParams,
    ProbabilisticClassificationModel,  # type: ignore[misc]
):
    """Adds the columns of Spark's classifiers: raw predictions, probabilities and the predicted class.

    If the model has one output unit, the unit is the probability of class 1, and the classes are 0 and 1.

    - `rawPredictionCol`, a vector: the logits. If the model gives probabilities, their logarithms, or for one
      output unit the log-odds.
    - `probabilityCol`, a vector: the softmax or sigmoid of the logits, or the model's output if it gives
      probabilities.
    - `predictionCol`, a double: the class with the largest probability, or the first of several equal ones;
      NaN if a probability is NaN. With `thresholds`, the class with the largest probability / threshold.

    On the driver, `predict`, `predictRaw` and `predictProbability` take one vector, and `evaluate` evaluates
    the model on rows.

    Args:
        model: a built Keras model with one output of one axis.
        **params: Params by name. An empty column name omits that column.
    """

    _evaluation = ClassificationSummary
    _training_evaluation = ClassificationTrainingSummary

    _added: ClassVar[tuple[str, ...]] = ("rawPredictionCol", "probabilityCol", "predictionCol")

    def __init__(self, model: keras.Model | None = None, **params: Unpack[ClassificationParams]) -> None:
        super().__init__()
        self._setDefault(probabilityCol="probability", rawPredictionCol="rawPrediction", fromLogits=False)
        set_given(self, {"model": model, **params})

    def _transform(self, dataset: DataFrame) -> DataFrame:
        units, thresholds = _units(value_of(self, "model")), self._checked_thresholds()
        names = [self.getOrDefault(param) for param in self._added]
        self._check_new(dataset)
        whole = "_".join(("distkeras", self.uid))
        predicted = self._predicted(dataset, whole, "array")
        output = F.transform(F.col(quoted(whole)), lambda value: value.cast("double"))
        raw, probability = scores(output, units, self.getOrDefault("fromLogits"))
        chosen = predicted_class(probability, thresholds)
        columns = (array_to_vector(raw), array_to_vector(probability), chosen)
        new = {name: column for name, column in zip(names, columns, strict=True) if name}
        return predicted.withColumns(new).drop(whole)

    def _checked_thresholds(self) -> list[float] | None:
        """Return `thresholds`, or None if they are not set.

        Raises:
            ValueError: there is not exactly one threshold per class.
        """
        thresholds: list[float] | None = (
            self.getOrDefault("thresholds") if self.isDefined("thresholds") else None
        )
        if thresholds is not None and len(thresholds) != self.numClasses:
            raise ValueError(
                f"Expected a threshold for each of {self.numClasses} classes. "
                f"Received: thresholds={thresholds}"
            )
        return thresholds

    @property
    def numClasses(self) -> int:  # noqa: N802 (Spark's own name)
        """The number of classes; 2 if the model has one output unit."""
        return max(2, _units(value_of(self, "model")))

    def predictRaw(self, value: Vector) -> DenseVector:  # noqa: N802
        """Return the raw predictions for one row, on the driver.

        Args:
            value: a vector or an array of numbers, as in the features column.

        Raises:
            ValueError: `value` does not fill the model's input, or the model has several inputs.
        """
        return DenseVector(self._scores_of(value)[0])

    def predictProbability(self, value: Vector) -> DenseVector:  # noqa: N802
        """Return the probabilities for one row; `value` as in `predictRaw`."""
        return DenseVector(self._scores_of(value)[1])

    def predict(self, value: Vector) -> float:
        """Return the class of one row; `value` as in `predictRaw`."""
        return predicted_class_of_row(self._scores_of(value)[1], self._checked_thresholds())

    def _scores_of(self, value: Vector) -> tuple[Row, Row]:
        _units(value_of(self, "model"))
        return scores_of_row(self._output_of_row(value), self.getOrDefault("fromLogits"))


@accessors
class KerasClassifier(KerasEstimator, ClassifierParams, ProbabilisticClassifier):  # type: ignore[misc]
    """A `KerasEstimator` for classes 0, 1, 2 and so on; `fit` returns a `KerasClassificationModel`.

    It is a `pyspark.ml.classification.ProbabilisticClassifier`, so that `OneVsRest` and others accept it.

    Args:
        probabilityCol: column of probabilities that the fitted model adds. Default: "probability".
        rawPredictionCol: column of raw predictions that the fitted model adds. Default: "rawPrediction".
        fromLogits: whether the model outputs logits. Default: the setting of the loss.
        thresholds: one number above 0 per class (one of them may be 0). The fitted model predicts the class
            with the largest probability / threshold. Default: the class with the largest probability.
        **params: the Params of `KerasEstimator`. Default of `loss`: binary crossentropy if the model has one
            output unit, else sparse categorical crossentropy of class indices; of logits with `fromLogits`.

    Raises:
        ValueError: from `fit`: the model does not have one output of one axis, a label is not an integer, or
            the numbers of thresholds and classes differ; else as `KerasEstimator`.
        TypeError: as `KerasEstimator`.

    Example:
        ```python
        model = KerasClassifier(model=network, workerOptimizer="adam", numWorkers=4).fit(df)
        accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(model.transform(df))
        ```
    """

    _model_class: ClassVar[type[KerasModel]] = KerasClassificationModel

    @by_name
    def __init__(
        self,
        *,
        probabilityCol: str | None = None,
        rawPredictionCol: str | None = None,
        fromLogits: bool | None = None,
        thresholds: list[float] | None = None,
        **params: Unpack[EstimatorParams],
    ) -> None:
        given = self._input_kwargs
        super().__init__()
        self._setDefault(probabilityCol="probability", rawPredictionCol="rawPrediction")
        self.setParams(**given)

    def _fit(self, dataset: DataFrame) -> KerasModel:
        # Check before the training what would fail after it.
        _units(value_of(self, "model"))
        KerasClassificationModel._of(value_of(self, "model"), self)._checked_thresholds()
        if not self._loss_takes_classes_alone():
            check_whole(dataset, self.getOrDefault("labelCol"))
        model = super()._fit(dataset)
        if not self.isDefined("fromLogits"):
            model._set(fromLogits=_of_logits(model.getModel().loss))
        return model

    def _loss_takes_classes_alone(self) -> bool:
        """Whether the loss makes the trainer refuse fractional labels; other losses take probabilities."""
        model = value_of(self, "model")
        loss = deserialized(self.getOrDefault("loss")) if self.isDefined("loss") else None
        if loss is None and not model.compiled:
            loss = self._compile_defaults(model)["loss"]
        return loss_names(model, loss) == "sparse_categorical_crossentropy"

    def _compile_defaults(self, model: keras.Model) -> dict[str, Any]:
        logits = self.isDefined("fromLogits") and bool(self.getOrDefault("fromLogits"))
        if _units(model) == 1:
            return {"loss": keras.losses.BinaryCrossentropy(from_logits=logits)}
        return {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=logits)}


def _of_logits(loss: Any) -> bool:
    # Keras's losses store `from_logits` in the arguments of their function.
    return bool(getattr(loss, "from_logits", getattr(loss, "_fn_kwargs", {}).get("from_logits", False)))


def _units(model: keras.Model) -> int:
    """Return the number of units of the only output.

    Raises:
        ValueError: the model has several outputs, or the output does not have one axis.
    """
    _, outputs = model_signature(model)
    shapes = [spec.shape for spec in outputs]
    if len(shapes) != 1 or shapes[0] is None or len(shapes[0]) != 1 or shapes[0][0] is None:
        raise ValueError(
            "Expected a model with one output of one axis: one number per class, or one number. "
            f"Received: outputs of shape {[_shape(spec) for spec in outputs]}"
        )
    return shapes[0][0]


def _shape(spec: TensorSpec) -> str:
    return "unknown" if spec.shape is None else str((None, *spec.shape))
