"""The evaluators of dist-keras, under their old names, and Spark's metrics for columns of `ModelPredictor`.

Each is a `pyspark.ml` Evaluator with Params. It can be saved, and can compare models in a CrossValidator.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, final

from pyspark.ml import evaluation
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param.shared import HasLabelCol, HasPredictionCol, Param, Params
from pyspark.ml.util import DefaultParamsReadable, DefaultParamsWritable
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.accessors import accessors
from distkeras.cluster.description import described
from distkeras.cluster.source import Source, source_of
from distkeras.cluster.validate import find
from distkeras.removed_names import missing

__all__ = ["AUCEvaluator", "AccuracyEvaluator", "ColumnEvaluator", "F1Evaluator", "LossEvaluator"]

LOG_LOSSES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")
ERRORS = {"mse": "mse", "mean_squared_error": "mse", "mae": "mae", "mean_absolute_error": "mae"}


class _SavedEvaluator(evaluation.Evaluator, DefaultParamsReadable, DefaultParamsWritable):  # type: ignore[misc]
    """Abstract: an Evaluator that Spark can save."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        accessors(cls)


class ColumnEvaluator(_SavedEvaluator, HasLabelCol, HasPredictionCol):  # type: ignore[misc]
    """Abstract: compares the columns `labelCol` and `predictionCol`."""

    def __init__(self, label_col: str = "label", prediction_col: str = "prediction") -> None:
        super().__init__()
        self._setDefault(labelCol="label", predictionCol="prediction")
        self._set(labelCol=label_col, predictionCol=prediction_col)

    @abstractmethod
    def _score(self, dataset: DataFrame, label: Source, prediction: Source) -> float:
        """Return the metric over `dataset`, which has at least one row."""

    def _evaluate(self, dataset: DataFrame) -> float:
        fields = {field.name: field for field in dataset.schema.fields}
        label = source_of(find(self.getLabelCol(), fields, "label_col"))
        prediction = source_of(find(self.getPredictionCol(), fields, "prediction_col"))
        with described(dataset.sparkSession, f"evaluates by {type(self).__name__}"):
            if dataset.isEmpty():
                raise ValueError(
                    f"{type(self).__name__}: expected rows to evaluate. Received: an empty DataFrame"
                )
            return self._score(dataset, label, prediction)

    def _number(self, source: Source) -> Column:
        """Return the column as a double.

        Raises:
            TypeError: the column does not hold single numbers.
        """
        if source.depth or isinstance(source.leaf, T.StringType):
            raise TypeError(
                f"{type(self).__name__}: expected single numbers in column {source.name!r}. For the index of "
                "the predicted class use LabelIndexTransformer; for a single output, use ModelPredictor's "
                f"output='scalar'. Received: {'strings' if not source.depth else 'vectors or arrays'}"
            )
        return source.column.cast("double")


@final
class AccuracyEvaluator(ColumnEvaluator):
    """The share of rows whose prediction equals the label. A null or NaN on either side counts as wrong.

    Args:
        label_col: class indices, or any values that can be compared with the predictions.
        prediction_col: predicted classes, such as the output of `LabelIndexTransformer`.

    Raises:
        ValueError: from `evaluate`: a column is unknown, or there are no rows.
        TypeError: from `evaluate`: a column holds vectors or arrays, or only one of them holds strings.
    """

    def _score(self, dataset: DataFrame, label: Source, prediction: Source) -> float:
        if isinstance(label.leaf, T.StringType) and isinstance(prediction.leaf, T.StringType):
            right = label.column == prediction.column
        else:
            one, other = self._number(label), self._number(prediction)
            right = (one == other) & ~F.isnan(one)  # In Spark, NaN equals NaN.
        share = dataset.agg(F.avg(F.coalesce(right, F.lit(False)).cast("double"))).first()
        return float(share[0]) if share else 0.0


@final
class F1Evaluator(ColumnEvaluator):
    """The mean F1 score of the classes, weighted by their shares of the labels: Spark's `f1`.

    Rows with a null in either column are left out.

    Args:
        label_col: class indices.
        prediction_col: predicted class indices, such as the output of `LabelIndexTransformer`.

    Raises:
        ValueError, TypeError: as `AccuracyEvaluator`.
    """

    def _score(self, dataset: DataFrame, label: Source, prediction: Source) -> float:
        pairs = _pairs(dataset, self._number(label), self._number(prediction))
        evaluator = MulticlassClassificationEvaluator(labelCol="label", predictionCol="prediction")
        return float(evaluator.evaluate(pairs, {evaluator.metricName: "f1"}))


@final
class AUCEvaluator(ColumnEvaluator):
    """Area under the ROC curve of a binary classifier: Spark's `areaUnderROC`, over every threshold.

    Rows with a null in either column are left out.

    Args:
        label_col: 0 or 1.
        prediction_col: the score of class 1: numbers, or vectors or arrays whose last element is the score.

    Raises:
        ValueError, TypeError: as `AccuracyEvaluator`.
    """

    def _score(self, dataset: DataFrame, label: Source, prediction: Source) -> float:
        score = (
            F.element_at(prediction.array("float64"), -1) if prediction.depth else self._number(prediction)
        )
        pairs = _pairs(dataset, self._number(label), score.cast("double"))
        evaluator = BinaryClassificationEvaluator(
            labelCol="label", rawPredictionCol="prediction", metricName="areaUnderROC", numBins=0
        )
        return float(evaluator.evaluate(pairs))


def _loss(value: Any) -> str:
    if value not in (*LOG_LOSSES, *ERRORS):
        raise ValueError(f"Expected one of {[*LOG_LOSSES, *ERRORS]}. Received: loss={value!r}")
    return str(value)


@final
class LossEvaluator(ColumnEvaluator):
    """The mean loss over the rows, by Spark's own evaluators (`logLoss`, `mse`, `mae`). Smaller is better.

    Probabilities below 1e-15 are clipped to it. Rows with a null in either column are left out.

    Args:
        label_col: class indices; for "categorical_crossentropy" also one-hot vectors or arrays; for "mse" and
            "mae" numbers.
        prediction_col: probabilities, one vector or array per row (or one number for "binary_crossentropy");
            for "mse" and "mae" numbers.
        loss: Keras's name of the loss: "binary_crossentropy", "categorical_crossentropy",
            "sparse_categorical_crossentropy", "mse" or "mae".

    Raises:
        ValueError: from the constructor: the loss is unknown; else as `AccuracyEvaluator`.
        TypeError: as `AccuracyEvaluator`.
    """

    loss: Param[str] = Param(Params._dummy(), "loss", "name of the loss, as in Keras", _loss)

    def __init__(
        self,
        label_col: str = "label",
        prediction_col: str = "prediction",
        loss: str = "sparse_categorical_crossentropy",
    ) -> None:
        super().__init__(label_col, prediction_col)
        self._setDefault(loss="sparse_categorical_crossentropy")
        self._set(loss=loss)

    def isLargerBetter(self) -> bool:  # noqa: N802 (Spark's own name)
        """Whether a larger value is better: no."""
        return False

    def _score(self, dataset: DataFrame, label: Source, prediction: Source) -> float:
        loss: str = self.getOrDefault("loss")
        if loss in ERRORS:
            pairs = _pairs(dataset, self._number(label), self._number(prediction))
            return float(
                RegressionEvaluator(
                    labelCol="label", predictionCol="prediction", metricName=ERRORS[loss]
                ).evaluate(pairs)
            )
        if loss == "categorical_crossentropy" and label.depth:
            one_hot = label.array("float64")
            index = (F.array_position(one_hot, F.array_max(one_hot)) - 1).cast("double")
        else:
            index = self._number(label)
        pairs = _pairs(dataset, index, self._probabilities(loss, prediction))
        pairs = pairs.select(
            "label", array_to_vector("prediction").alias("probability"), F.lit(0.0).alias("none")
        )
        evaluator = MulticlassClassificationEvaluator(
            labelCol="label", probabilityCol="probability", predictionCol="none", metricName="logLoss"
        )
        return float(evaluator.evaluate(pairs))

    def _probabilities(self, loss: str, prediction: Source) -> Column:
        """Return an array with the probability of each class."""
        if not prediction.depth:
            one = self._number(prediction)
            return F.when(one.isNotNull(), F.array(1 - one, one))
        array = prediction.array("float64").cast("array<double>")
        if loss == "binary_crossentropy":
            return F.when(F.size(array) == 1, F.array(1 - array[0], array[0])).otherwise(array)
        return array


def _pairs(dataset: DataFrame, label: Column, prediction: Column) -> DataFrame:
    return dataset.select(label.alias("label"), prediction.alias("prediction")).na.drop()


if not TYPE_CHECKING:  # Else type checkers would accept any name in this module.

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
