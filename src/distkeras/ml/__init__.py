"""Keras models as stages of Spark ML: estimators, models, and their persistence."""

from distkeras.ml.classifier import KerasClassificationModel, KerasClassifier
from distkeras.ml.estimator import KerasEstimator
from distkeras.ml.model import KerasModel
from distkeras.ml.persistence import LoadError
from distkeras.ml.regressor import KerasRegressionModel, KerasRegressor

__all__ = [
    "KerasClassificationModel",
    "KerasClassifier",
    "KerasEstimator",
    "KerasModel",
    "KerasRegressionModel",
    "KerasRegressor",
    "LoadError",
]
