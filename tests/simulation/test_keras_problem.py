"""A real model as a problem: what is refused. Its numbers: tests/worker/simulation_suite.py."""

import functools
import subprocess
import sys

import numpy as np
import pytest


def test_importing_the_simulator_does_not_import_keras():
    code = "import sys, distkeras.simulation; print('keras' in sys.modules, 'matplotlib' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_the_simulator_needs_neither_spark_nor_a_backend_that_it_does_not_use():
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pyspark", "pandas", "pyarrow", "tensorflow", "torch", "matplotlib"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
from distkeras.algorithms import DynSGD
from distkeras.simulation import KerasProblem, Quadratic, simulate
print(simulate(DynSGD(communication_window=1), Quadratic(), num_workers=2, num_commits=8).losses[-1] < 0.5)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"]


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

    from distkeras.algorithms import DOWNPOUR, EAMSGD, GPA
    from distkeras.simulation import KerasProblem, simulate

    with pytest.raises(ValueError, match="Build the model"):
        KerasProblem(keras.Sequential([keras.layers.Dense(1)]), np.ones((4, 2)), np.ones(4), loss="mse")
    few = KerasProblem(linear(), np.ones((4, 2)), np.ones(4), loss="mse")
    with pytest.raises(ValueError, match="4 rows are too few for 5 workers"):
        simulate(DOWNPOUR(), few, num_workers=5, num_commits=5)
    adam = KerasProblem(linear(), np.ones((4, 2)), np.ones(4), loss="mse", optimizer="adam")
    with pytest.raises(ValueError, match="leave out the problem's `optimizer`"):
        simulate(EAMSGD(), adam, num_workers=1, num_commits=1)
    waiting = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    waits = KerasProblem(linear(), np.ones((4, 2)), np.ones(4), loss="mse", optimizer=waiting)
    with pytest.raises(ValueError, match="SGD with gradient_accumulation_steps=4"):
        simulate(GPA(), waits, num_workers=1, num_commits=1)
