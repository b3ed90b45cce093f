"""What Python shows of trainers, histories and results: what a person wants to know of them, in a line."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from distkeras import ADAG, AEASGD, DistributedTrainer, EnsembleTrainer, SingleTrainer, algorithms
from distkeras.doctor import Diagnosis, Finding
from distkeras.events import Window
from distkeras.lifecycle import TrainingResult
from distkeras.simulation import Quadratic, simulate
from distkeras.trainers import History


@pytest.fixture(scope="module")
def model():
    return keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)], name="line")


def test_a_trainer_shows_its_rule_workers_epochs_and_batch(model):
    given = (model, "sgd", "mse")
    numbers = "num_workers=4, num_epoch=3, batch_size=64"
    options = {"num_workers": 4, "num_epoch": 3, "batch_size": 64, "verbose": 0}
    assert repr(ADAG(*given, **options)) == f"ADAG('line', {numbers})"
    assert repr(AEASGD(*given, rho=1.0, **options)) == f"AEASGD('line', rho=1.0, alpha=0.1, {numbers})"
    rule = algorithms.ADAG(communication_window=3)
    general = DistributedTrainer(model, rule, "sgd", "mse", **options)
    assert repr(general) == f"DistributedTrainer('line', ADAG(communication_window=3), {numbers})"
    elastic = DistributedTrainer(model, rule, "sgd", "mse", max_workers=8)
    assert "min_workers=1, max_workers=8" in repr(elastic)
    assert repr(SingleTrainer(*given)) == (
        "SingleTrainer('line', Sequential(), num_workers=1, num_epoch=1, batch_size=32)"
    )
    assert "num_ensembles=3" in repr(EnsembleTrainer(*given, num_ensembles=3))


def test_every_trainer_of_the_registry_can_be_shown(model):
    for name, rule in algorithms.REGISTRY.items():
        shown = repr(DistributedTrainer(model, rule(), keras.optimizers.SGD(0.001), "mse"))
        assert shown.startswith(f"DistributedTrainer('line', {name}("), shown


def test_a_history_shows_its_numbers_of_windows_and_epochs_and_the_last_metrics_and_not_every_window():
    windows = [Window(0, 0, i, 1, 10, {"loss": 0.123456}, 0, 100.0) for i in range(2000)]
    history = History(windows)
    assert repr(history) == "History(2,000 windows, 0 epochs; loss=0.1235)"
    history.add_epoch(0, {"loss": 0.5, "val_loss": 0.25})
    assert repr(history) == "History(2,000 windows, 1 epoch; loss=0.5, val_loss=0.25)"
    history.add_epoch(1, {"by_class": [0.1, 0.2]})
    assert "by_class=[0.1, 0.2]" in repr(history)
    assert repr(History()) == "History(0 windows, 0 epochs)"


def test_a_result_shows_why_the_training_ended_its_epochs_the_best_and_the_run():
    logs = {"loss": [3.0, 2.0, 2.5], "accuracy": [0.1, 0.9, 0.8]}
    facts = {
        "seconds": 12.3456,
        "run": "runs/7",
        "checkpoints": {1: "a", 2: "b"},
        "failures": ("events: full",),
    }
    result = TrainingResult.of("target", "loss is 2", [0, 1, 2], logs, **facts)
    assert repr(result) == (
        "TrainingResult(target: loss is 2; 3 epochs in 12.3 s; best in epoch 1: loss=2, accuracy=0.9; "
        "2 checkpoints; not kept: events: full; run 'runs/7')"
    )
    empty = TrainingResult("stop", "`stop` was called", 0)
    assert repr(empty) == "TrainingResult(stop: `stop` was called; 0 epochs in 0 s)"


def test_the_result_of_a_simulation_shows_its_losses_and_no_arrays():
    result = simulate(
        algorithms.ADAG(), Quadratic(start=[1.0, 1.0]), num_workers=2, num_commits=5, learning_rate=0.01
    )
    shown = repr(result)
    assert shown.startswith("Result(ADAG(communication_window=12), num_workers=2; 5 commits in ")
    assert f"loss 1 to {result.losses[-1]:.4g})" in shown
    lost = dataclasses.replace(result, diverged=True, losses=np.array([]))
    assert repr(lost).endswith("no losses; diverged)")


def test_a_diagnosis_is_shown_as_a_person_reads_it():
    assert repr(Diagnosis((Finding("error", "Java", "none.", "Install it."),))).splitlines() == [
        "✗ Java: none. Install it.",
        "1 error, 0 warnings, 0 checks passed.",
    ]
