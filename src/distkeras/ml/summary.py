"""Summaries of a model: its metrics on rows, computed by Spark's own evaluators, and its training."""

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

from distkeras.cluster.description import described
from distkeras.cluster.names import Table
from distkeras.cluster.source import quoted
from distkeras.trainers import History


@dataclass(frozen=True)
class Columns:
    """Names of the columns that a summary needs.

    Attributes:
        label: column of the labels.
        prediction: column of the predicted numbers or classes.
        weight: column of the rows' weights; None for equal weights.
        raw: column of the raw predictions, for classifiers.
    """

    label: str
    prediction: str
    weight: str | None = None
    raw: str = ""


@dataclass(frozen=True)
class Training:
    """Facts of a finished training.

    Attributes:
        rows: the training rows.
        history: the communication windows.
        seconds: duration of the whole training.
        num_updates: number of commits to the center.
    """

    rows: DataFrame
    history: History
    seconds: float
    num_updates: int


class TrainingSummary:
    """The summary of a training. A model that `fit` returned has it as `summary`.

    Args:
        training: the facts of the training.
    """

    def __init__(self, training: Training) -> None:
        self._training = training

    @property
    def history(self) -> History:
        """The communication windows, in the order in which the center applied them."""
        return self._training.history

    @property
    def totalIterations(self) -> int:
        """Total minibatch steps of all workers."""
        return sum(window.steps for window in self.history)

    @property
    def objectiveHistory(self) -> list[float]:
        """The loss of every iteration: the mean over the workers' communication windows, weighted by rows."""
        return [record.metrics["loss"] for record in self.history.averaged()]

    @property
    def trainingTime(self) -> float:
        """Duration of the whole training in seconds."""
        return self._training.seconds

    @property
    def numUpdates(self) -> int:
        """Number of commits to the center."""
        return self._training.num_updates


class Summary:
    """Abstract: metrics of predictions against labels.

    Args:
        predictions: rows with labels and the columns that the model adds.
        columns: names of the columns to compare.
    """

    def __init__(self, predictions: DataFrame, columns: Columns) -> None:
        self.predictions = predictions
        self._columns = columns

    @property
    def labelCol(self) -> str:
        """Name of the label column in `predictions`."""
        return self._columns.label

    @property
    def predictionCol(self) -> str:
        """Name of the prediction column in `predictions`."""
        return self._columns.prediction

    @property
    def weightCol(self) -> str | None:
        """Name of the weight column in `predictions`; None if all rows have equal weights."""
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

    def _score(self, evaluator: Any, rows: DataFrame) -> float:
        with described(rows.sparkSession, f"measures {evaluator.getMetricName()} for a model's summary"):
            return float(evaluator.evaluate(rows))


class ClassificationSummary(Summary):
    """The metrics of a classifier. One pass over the rows counts them by label and prediction."""

    @cached_property
    def _counts(self) -> DataFrame:
        groups = self._evaluated.groupBy("label", "prediction").agg(F.sum("weight").alias("weight"))
        with described(self.predictions.sparkSession, "counts the predictions of a model's summary"):
            counts = groups.collect()
        schema = "label double, prediction double, weight double"
        return self.predictions.sparkSession.createDataFrame([tuple(row) for row in counts], schema)

    def _measure(self, name: str, **params: Any) -> float:
        evaluator = MulticlassClassificationEvaluator(metricName=name, weightCol="weight", **params)
        return self._score(evaluator, self._counts)

    def _by_label(self, name: str, **params: Any) -> list[float]:
        return [self._measure(name, metricLabel=label, **params) for label in self.labels]

    @cached_property
    def labels(self) -> list[float]:
        """The labels of the rows in ascending order, which is the order of all metrics by label."""
        with described(self.predictions.sparkSession, "reads the labels of a model's summary"):
            return sorted({row.label for row in self._counts.collect()})

    @property
    def accuracy(self) -> float:
        """The share of rows with a correct prediction."""
        return self._measure("accuracy")

    @property
    def weightedPrecision(self) -> float:
        """The mean precision of the classes, weighted by their shares of the rows."""
        return self._measure("weightedPrecision")

    @property
    def weightedRecall(self) -> float:
        """The mean recall of the classes, weighted by their shares of the rows."""
        return self._measure("weightedRecall")

    @property
    def weightedTruePositiveRate(self) -> float:
        """The mean true positive rate of the classes, weighted by their shares of the rows."""
        return self._measure("weightedTruePositiveRate")

    @property
    def weightedFalsePositiveRate(self) -> float:
        """The mean false positive rate of the classes, weighted by their shares of the rows."""
        return self._measure("weightedFalsePositiveRate")

    def weightedFMeasure(self, beta: float = 1.0) -> float:
        """Return the mean F-measure of the classes, weighted by their shares of the rows."""
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
            ValueError: there are labels other than 0 and 1.
        """
        return self._area("areaUnderROC")

    @property
    def areaUnderPR(self) -> float:
        """Area under the precision-recall curve, for two classes. Runs the model over the rows again.

        Raises:
            ValueError: there are labels other than 0 and 1.
        """
        return self._area("areaUnderPR")

    def _area(self, name: str) -> float:
        if not set(self.labels) <= {0.0, 1.0}:
            raise ValueError(f"`{name}` is for the classes 0 and 1. Received: labels={self.labels}")
        evaluator = BinaryClassificationEvaluator(rawPredictionCol="raw", weightCol="weight", metricName=name)
        return self._score(evaluator, self._evaluated)


class RegressionSummary(Summary):
    """The metrics of a regressor. Each metric runs the model over the rows once."""

    def _measure(self, name: str) -> float:
        evaluator = RegressionEvaluator(labelCol="label", weightCol="weight", metricName=name)
        return self._score(evaluator, self._evaluated)

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
    """The training summary of a classifier, with its metrics on the training rows."""

    def __init__(self, training: Training, predictions: DataFrame, columns: Columns) -> None:
        ClassificationSummary.__init__(self, predictions, columns)
        TrainingSummary.__init__(self, training)


class RegressionTrainingSummary(RegressionSummary, TrainingSummary):
    """The training summary of a regressor, with its metrics on the training rows."""

    def __init__(self, training: Training, predictions: DataFrame, columns: Columns) -> None:
        RegressionSummary.__init__(self, predictions, columns)
        TrainingSummary.__init__(self, training)
