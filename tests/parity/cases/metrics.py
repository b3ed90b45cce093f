"""Metrics: their last values stand in the model that comes back."""

from __future__ import annotations

from typing import Any

import keras
from keras import metrics, ops
from registry import Training, case
from samples import classes, mlp, numbers, sgd


class Largest(metrics.Metric):
    """A metric of the user's own, with a state."""

    def __init__(self, name: str = "largest", **options: Any) -> None:
        super().__init__(name=name, **options)
        self.largest = self.add_variable(shape=(), initializer="zeros", name="largest")

    def update_state(self, y: Any, predicted: Any, sample_weight: Any = None) -> None:
        self.largest.assign(ops.maximum(self.largest, ops.max(predicted)))

    def result(self) -> Any:
        return ops.convert_to_tensor(self.largest)


def surest(y: Any, predicted: Any) -> Any:
    """A metric that is a function."""
    return ops.max(predicted, axis=-1)


def measured(
    *, by: list[Any], weighted_by: list[Any] | None = None, hot: bool = True, **options: Any
) -> Training:
    """Return the training of a small classifier with these metrics."""
    y = keras.utils.to_categorical(classes(3), 3) if hot else classes(3)
    settings = {
        "optimizer": sgd(),
        "loss": "categorical_crossentropy" if hot else "sparse_categorical_crossentropy",
        "metrics": by,
        "weighted_metrics": weighted_by,
    }
    return Training(mlp(), numbers(6), y, settings, **options)


@case()
def metrics_auc_and_f1() -> Training:
    return measured(by=[metrics.AUC(num_thresholds=20), metrics.F1Score(average=None), metrics.Precision()])


@case()
def metrics_of_their_own() -> Training:
    return measured(by=[Largest(), surest, "accuracy"], hot=False)


@case()
def metrics_weighted() -> Training:
    return measured(by=["accuracy"], weighted_by=["accuracy", metrics.Recall()], sample_weight=numbers() + 1)


@case()
def metrics_confusion() -> Training:
    mean_iou = metrics.MeanIoU(3, sparse_y_true=False, sparse_y_pred=False)
    return measured(by=[mean_iou, metrics.TopKCategoricalAccuracy(2)])


@case()
def metrics_with_arguments_outside_their_configuration() -> Training:
    own = Largest()
    result = own.result
    own.result = lambda: result() * 3
    return measured(by=[metrics.CosineSimilarity(axis=0), own])
