"""Of which metrics more is better: one answer for targets and for checkpoints, as in Keras's callbacks."""

from __future__ import annotations

import inspect

import keras
import pytest
from keras.src.metrics import ALL_OBJECTS, ALL_OBJECTS_DICT

from distkeras import Checkpoints, DistributedTrainer, RunOptions, StopWhen, algorithms
from distkeras.runs.direction import compiled_metrics, known_mode, mode_of

NEITHER = {"Mean", "Sum", "Metric", "MeanMetricWrapper"}
"""Classes for metrics of the user's own."""

ARGUMENTS = {"num_classes": 3, "target_class_ids": [0]}

MODES = {"up": "max", "down": "min"}


def made(cls):
    needed = [
        name
        for name, each in inspect.signature(cls).parameters.items()
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD and name != "name"
    ]
    return cls(**{name: ARGUMENTS.get(name, 0.5) for name in needed})


def test_every_metric_of_keras_has_the_direction_that_keras_gives_it():
    shipped = {cls for cls in ALL_OBJECTS if cls.__name__ not in NEITHER}
    assert len(shipped) >= 40
    counted = set()
    for cls in shipped:
        metric = made(cls)
        direction = MODES.get(getattr(metric, "_direction", None))
        if direction is None:
            counted.add(metric.name)
            direction = "max" if metric.name.startswith("true") else "min"
        # By the object, by its name alone, as one of several, and by each name that `compile` takes.
        assert mode_of(f"val_{metric.name}", [metric]) == mode_of(metric.name) == direction
        assert mode_of(f"val_second_output_{metric.name}", ["mse", metric]) == direction
        names = {name for name, each in ALL_OBJECTS_DICT.items() if each is cls}
        assert {name: mode_of(name) for name in names} == dict.fromkeys(names, direction)
    # Those that Keras's callbacks do not know either: the name decides.
    assert counted == {"true_positives", "true_negatives", "false_positives", "false_negatives"}


def test_a_loss_of_keras_as_a_metric_is_better_if_it_is_smaller():
    # The name would mislead: `keras.losses.dice` is 1 less the coefficient.
    for loss in (keras.losses.dice, keras.losses.Dice(), keras.losses.cosine_similarity):
        name = getattr(loss, "name", None) or loss.__name__
        assert mode_of(f"val_{name}", [loss]) == "min"
    assert mode_of("dice") == "max"


def test_a_metric_knows_better_than_its_name():
    mine = keras.metrics.MeanSquaredError(name="accuracy")
    assert mode_of("val_accuracy", [mine]) == "min"
    assert mode_of("val_accuracy_loss", [mine]) == "min"
    assert mode_of("accumulated") is mode_of("precision_error") is mode_of("mean") is None
    with pytest.raises(ValueError, match=r"Set StopWhen\(x\).*Received: no mode for 'val_mean'"):
        known_mode("val_mean", [], "StopWhen(x)")


def compiled(*metrics):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=list(metrics), weighted_metrics=["mae"])
    return model


def odd(y_true, y_pred):
    return keras.ops.mean(y_true - y_pred)


def test_targets_and_checkpoints_follow_the_metrics_of_the_model():
    found = compiled_metrics(compiled("accuracy", keras.losses.dice, odd))
    assert found == ["accuracy", keras.losses.dice, odd, "mae"]
    assert StopWhen(val_dice=0.9).reached({"val_dice": 0.95})
    assert StopWhen(val_dice=0.9).for_metrics(found).reached({"val_dice": 0.95}) is None
    assert StopWhen(val_dice=0.9).for_metrics(found).reached({"val_dice": 0.85})
    assert StopWhen(odd=0.9, mode={"odd": "max"}).for_metrics(found).reached({"odd": 0.95})
    assert Checkpoints(monitor="val_dice").for_metrics(found).mode == "min"
    assert Checkpoints(monitor="val_acc").for_metrics(found).mode == "max"
    assert Checkpoints(monitor="odd", mode="max").for_metrics(found).mode == "max"


@pytest.mark.parametrize(
    ("around", "named"),
    [
        ({"stop": StopWhen(val_odd=0.5)}, r'StopWhen\(val_odd=0\.5, mode=\{"val_odd": "max"\}\)'),
        ({"run": RunOptions("nowhere", Checkpoints(monitor="odd"))}, r"Checkpoints\(monitor='odd', mode="),
    ],
)
def test_a_training_refuses_a_metric_of_unknown_direction_before_it_reads_data(around, named):
    trainer = DistributedTrainer(compiled(odd), algorithms.DynSGD(), verbose=0)
    with pytest.raises(ValueError, match=named):
        trainer.train(None, **around)
