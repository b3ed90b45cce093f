"""A real model as a problem: each backend in a process of its own, against Keras's own training."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("jax", "tensorflow", "torch")
every_backend = pytest.mark.parametrize("backend", BACKENDS)


@functools.cache
def checks(backend):
    environment = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"} | os.environ
    environment["KERAS_BACKEND"] = backend
    script = Path(__file__).with_name("keras_checks.py")
    run = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@every_backend
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_worker_equals_keras_own_training(backend, optimizer):
    check = checks(backend)[optimizer]
    assert check["steps"] == 12
    assert check["moved"] > 0.02
    assert check["distance"] == pytest.approx(0, abs=1e-5)


@every_backend
def test_momentum_of_a_rule_is_nesterovs_step_of_the_model(backend):
    check = checks(backend)["nesterov"]
    assert check["weight"] == pytest.approx(check["expected"], rel=1e-5)


@every_backend
def test_workers_learn_with_dropout_and_batch_statistics(backend):
    check = checks(backend)["learning"]
    assert check["samples"] == [512 * commit for commit in range(13)]
    assert check["accuracy"][0] < 0.6 < 0.8 < check["accuracy"][-1]
    assert check["losses"][-1] < check["losses"][1] < check["losses"][0]
    assert check["statistics_moved"] > 0.05
    assert check["same"]


@every_backend
def test_center_is_evaluated_at_inference_on_all_rows(backend):
    check = checks(backend)["evaluation"]
    assert check["loss"] == pytest.approx(check["expected_loss"], rel=1e-5)
    assert check["accuracy"] == pytest.approx(check["expected_accuracy"])


def test_importing_the_simulator_does_not_import_keras():
    code = "import sys, distkeras.simulation; print('keras' in sys.modules, 'matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


@functools.cache
def linear():
    import keras

    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (np.ones((4, 2)), np.ones(3), {}, "`x` needs .* 4 and 3 rows"),
        (np.ones((0, 2)), np.ones(0), {}, "0 and 0 rows"),
        (np.ones((4, 2)), np.ones(4), {"validation": (np.ones((2, 2)), np.ones(1))}, "`validation` needs"),
        (np.ones((4, 2)), np.ones(4), {"batch_size": 0}, "batch_size=0"),
    ],
)
def test_data_that_do_not_fit_are_named(x, y, options, words):
    from distkeras.simulation import KerasProblem

    with pytest.raises(ValueError, match=words):
        KerasProblem(linear(), x, y, loss="mse", **options)


def test_model_must_be_built_and_rows_must_suffice():
    import keras

    from distkeras.algorithms import DOWNPOUR, EAMSGD
    from distkeras.simulation import KerasProblem, simulate

    with pytest.raises(ValueError, match="Build the model"):
        KerasProblem(keras.Sequential([keras.layers.Dense(1)]), np.ones((4, 2)), np.ones(4), loss="mse")
    few = KerasProblem(linear(), np.ones((4, 2)), np.ones(4), loss="mse")
    with pytest.raises(ValueError, match="4 rows are too few for 5 workers"):
        simulate(DOWNPOUR(), few, num_workers=5, num_commits=5)
    adam = KerasProblem(linear(), np.ones((4, 2)), np.ones(4), loss="mse", optimizer="adam")
    with pytest.raises(ValueError, match="leave out the problem's `optimizer`"):
        simulate(EAMSGD(), adam, num_workers=1, num_commits=1)
