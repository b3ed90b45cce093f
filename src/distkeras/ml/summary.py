"""How well a model does on rows, by the measures of Spark's own evaluators, and how it was trained."""

# ruff: noqa: N802 (named as Spark names its own)
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.names import Table
from distkeras.cluster.source import quoted
from distkeras.trainers import History


@dataclass(frozen=True)
class Columns:
    """Where the predictions have what is judged.

    Attributes:
        label: name of the labels' column.
        prediction: of the predicted numbers or classes.
        weight: of a number by which each row counts; None: all alike.
        raw: of the raw predictions, for classifiers.
    """

    label: str
    prediction: str
    weight: str | None = None
    raw: str = ""


@dataclass(frozen=True)
class Training:
    """What a trainer left behind.

    Attributes:
        rows: that were trained on.
        history: the windows.
        seconds: that it took, all of it.
        num_updates: commits that the center took.
    """

    rows: DataFrame
    history: History
    seconds: float
    num_updates: int


class TrainingSummary:
    """How a model was trained. `summary` of a model that `fit` returned gives it.

    Args:
        training: what the trainer left behind.
    """

    def __init__(self, training: Training) -> None:
        self._training = training

    @property
    def history(self) -> History:
        """The communication windows, in the order in which the center took them."""
        return self._training.history

    @property
    def totalIterations(self) -> int:
        """Minibatch steps of all workers together."""
        return sum(window.steps for window in self.history)

    @property
    def objectiveHistory(self) -> list[float]:
        """The loss of every iteration, a communication window of all workers; the mean by rows."""
        return [record.metrics["loss"] for record in self.history.averaged()]

    @property
    def trainingTime(self) -> float:
        """Seconds that the training took, all of it."""
        return self._training.seconds

    @property
    def numUpdates(self) -> int:
        """Commits that the center took."""
        return self._training.num_updates


class Summary:
    """Abstract: predictions beside labels.

    Args:
        predictions: rows with the columns of the model.
        columns: which are judged.
    """

    def __init__(self, predictions: DataFrame, columns: Columns) -> None:
        self.predictions = predictions
        self._columns = columns

    @property
    def labelCol(self) -> str:
        """Name of the labels' column in `predictions`."""
        return self._columns.label

    @property
    def predictionCol(self) -> str:
        """Name of the predictions' column in `predictions`."""
        return self._columns.prediction

    @property
    def weightCol(self) -> str | None:
        """Name of the weights' column in `predictions`; None: all rows count alike."""
        return self._columns.weight

    @cached_property
    def _evaluated(self) -> DataFrame:
        """Label, prediction and weight of every row, as doubles, and the raw prediction of a classifier."""
        table, columns = Table(self.predictions), self._columns
        label = table.source(columns.label, "labelCol").column.cast("double")
        weight = F.lit(1.0)
        if columns.weight is not None:
            weight = table.source(columns.weight, "weightCol").column.cast("double")
        given = [label.alias("label"), weight.alias("weight")]
        given.append(F.col(quoted(columns.prediction)).alias("prediction"))
        if columns.raw:
            given.append(F.col(quoted(columns.raw)).alias("raw"))
        return table.frame.select(*given)


class ClassificationSummary(Summary):
    """How well a classifier does. One pass over the rows counts them by label and prediction."""

    @cached_property
    def _counts(self) -> DataFrame:
        counts = self._evaluated.groupBy("label", "prediction").agg(F.sum("weight").alias("weight")).collect()
        schema = "label double, prediction double, weight double"
        return self.predictions.sparkSession.createDataFrame([tuple(row) for row in counts], schema)

    def _measure(self, name: str, **params: Any) -> float:
        evaluator = MulticlassClassificationEvaluator(metricName=name, weightCol="weight", **params)
        return float(evaluator.evaluate(self._counts))

    def _by_label(self, name: str, **params: Any) -> list[float]:
        return [self._measure(name, metricLabel=label, **params) for label in self.labels]

    @cached_property
    def labels(self) -> list[float]:
        """The labels of the rows, in ascending order: that of all measures by label."""
        return sorted({row.label for row in self._counts.collect()})

    @property
    def accuracy(self) -> float:
        """The share of rows whose class is predicted."""
        return self._measure("accuracy")

    @property
    def weightedPrecision(self) -> float:
        """The mean of the classes' precision, by their shares of the rows."""
        return self._measure("weightedPrecision")

    @property
    def weightedRecall(self) -> float:
        """The mean of the classes' recall, by their shares of the rows."""
        return self._measure("weightedRecall")

    @property
    def weightedTruePositiveRate(self) -> float:
        """The mean of the classes' true positive rate, by their shares of the rows."""
        return self._measure("weightedTruePositiveRate")

    @property
    def weightedFalsePositiveRate(self) -> float:
        """The mean of the classes' false positive rate, by their shares of the rows."""
        return self._measure("weightedFalsePositiveRate")

    def weightedFMeasure(self, beta: float = 1.0) -> float:
        """Return the mean of the classes' F-measure, by their shares of the rows."""
        return self._measure("weightedFMeasure", beta=beta)

    @property
    def truePositiveRateByLabel(self) -> list[float]:
        """The true positive rate of each of `labels`."""
        return self._by_label("truePositiveRateByLabel")

    @property
    def falsePositiveRateByLabel(self) -> list[float]:
        """The false positive rate of each of `labels`."""
        return self._by_label("falsePositiveRateByLabel")

    @property
    def precisionByLabel(self) -> list[float]:
        """The precision of each of `labels`."""
        return self._by_label("precisionByLabel")

    @property
    def recallByLabel(self) -> list[float]:
        """The recall of each of `labels`."""
        return self._by_label("recallByLabel")

    def fMeasureByLabel(self, beta: float = 1.0) -> list[float]:
        """Return the F-measure of each of `labels`."""
        return self._by_label("fMeasureByLabel", beta=beta)

    @property
    def areaUnderROC(self) -> float:
        """Area under the ROC curve, for two classes. Runs the model over the rows again.

        Raises:
            ValueError: there are others.
        """
        return self._area("areaUnderROC")

    @property
    def areaUnderPR(self) -> float:
        """Area under the precision-recall curve, for two classes. Runs the model over the rows again.

        Raises:
            ValueError: there are others.
        """
        return self._area("areaUnderPR")

    def _area(self, name: str) -> float:
        if not set(self.labels) <= {0.0, 1.0}:
            raise ValueError(f"`{name}` is for the classes 0 and 1. Received: labels={self.labels}")
        evaluator = BinaryClassificationEvaluator(rawPredictionCol="raw", weightCol="weight", metricName=name)
        return float(evaluator.evaluate(self._evaluated))


class RegressionSummary(Summary):
    """How well a regressor does. Each measure runs the model over the rows, once."""

    def _measure(self, name: str) -> float:
        evaluator = RegressionEvaluator(labelCol="label", weightCol="weight", metricName=name)
        return float(evaluator.evaluate(self._evaluated))

    @cached_property
    def r2(self) -> float:
        """The coefficient of determination."""
        return self._measure("r2")

    @cached_property
    def meanSquaredError(self) -> float:
        """The mean squared error."""
        return self._measure("mse")

    @property
    def rootMeanSquaredError(self) -> float:
        """The root of the mean squared error."""
        return float(self.meanSquaredError**0.5)

    @cached_property
    def meanAbsoluteError(self) -> float:
        """The mean absolute error."""
        return self._measure("mae")

    @cached_property
    def explainedVariance(self) -> float:
        """The variance that the predictions explain."""
        return self._measure("var")


class ClassificationTrainingSummary(ClassificationSummary, TrainingSummary):
    """How a classifier was trained, and how well it does on the rows that it was trained on."""

    def __init__(self, training: Training, predictions: DataFrame, columns: Columns) -> None:
        ClassificationSummary.__init__(self, predictions, columns)
        TrainingSummary.__init__(self, training)


class RegressionTrainingSummary(RegressionSummary, TrainingSummary):
    """How a regressor was trained, and how well it does on the rows that it was trained on."""

    def __init__(self, training: Training, predictions: DataFrame, columns: Columns) -> None:
        RegressionSummary.__init__(self, predictions, columns)
        TrainingSummary.__init__(self, training)
