"""Keras models as Spark ML stages: estimators, models and their persistence."""

from distkeras.ml.classifier import KerasClassificationModel, KerasClassifier
from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.model import KerasModel
from distkeras.ml.persistence import LoadError
from distkeras.ml.regressor import KerasRegressionModel, KerasRegressor
from distkeras.ml.summary import (
    ClassificationSummary,
    ClassificationTrainingSummary,
    RegressionSummary,
    RegressionTrainingSummary,
    TrainingSummary,
)

__all__ = [
    "ClassificationSummary",
    "ClassificationTrainingSummary",
    "KerasClassificationModel",
    "KerasClassifier",
    "KerasEstimator",
    "KerasModel",
    "KerasRegressionModel",
    "KerasRegressor",
    "LoadError",
    "RegressionSummary",
    "RegressionTrainingSummary",
    "TrainingSummary",
]
