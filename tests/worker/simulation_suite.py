"""A real model as a problem of the simulator, against Keras itself; test_simulation.py runs it."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distkeras.algorithms import DOWNPOUR, EAMSGD, LocalSGD
from distkeras.simulation import KerasProblem, simulate

RATE = 0.05


def data(rows=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, (x @ rng.normal(size=(6, 3))).argmax(1).astype(np.int32)


def model(dropout=0.0):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            # Before BatchNorm a bias has a gradient of zero: Adam would make steps of its rounding errors.
            keras.layers.Dense(5, kernel_regularizer=keras.regularizers.L2(0.01), use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(3),
        ]
    )


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def flat(network):
    variables = [*network.trainable_variables]
    variables += [value for value in network.non_trainable_variables if "float" in value.dtype]
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(value)) for value in variables])


class Remembering(KerasProblem):
    """Keeps the rows of every minibatch, in order."""

    rows = ()

    def _rows(self, replica):
        rows = super()._rows(replica)
        self.rows = (*self.rows, rows)
        return rows


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
def test_one_simulated_worker_equals_keras_own_training(optimizer_name):
    x, y = data()
    optimizers = {"sgd": lambda: keras.optimizers.SGD(RATE), "adam": lambda: keras.optimizers.Adam(0.01)}
    given = None if optimizer_name == "sgd" else optimizers[optimizer_name]()
    problem = Remembering(model(), x, y, loss=loss(), batch_size=16, optimizer=given)
    result = simulate(
        DOWNPOUR(communication_window=3), problem, num_workers=1, num_commits=4, learning_rate=RATE
    )
    reference = model()
    reference.compile(optimizers[optimizer_name](), loss())
    for rows in problem.rows:
        reference.train_on_batch(x[rows], y[rows])
    assert len(problem.rows) == 12
    # Only JAX trains the windows of many workers by one call.
    assert (problem.train_many is None) == (keras.backend.backend() != "jax")
    assert np.abs(result.center - problem.initial).max() > 0.02
    assert np.abs(result.center - flat(reference)).max() == pytest.approx(0, abs=1e-5)


def test_weights_that_an_optimizer_overwrites_cannot_be_simulated():
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    network.layers[0].quantize("float8")
    x = np.ones((4, 1), np.float32)
    with pytest.raises(ValueError, match="before `quantize`"):
        KerasProblem(network, x, x, loss="mean_squared_error", batch_size=4)


def test_momentum_of_a_rule_is_nesterovs_step_of_the_model():
    """One linear weight by mean squared error against the formula."""
    network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    network.set_weights([np.ones((1, 1), np.float32)])
    x, y = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
    problem = KerasProblem(network, x, y, loss="mean_squared_error", batch_size=4)
    rule = EAMSGD(communication_window=3, rho=1.0, learning_rate=1.0, momentum=0.5)  # the center takes x
    weight = simulate(rule, problem, num_workers=1, num_commits=1, learning_rate=RATE).center[0]
    expected, velocity = 1.0, 0.0
    for _ in range(3):
        velocity = 0.5 * velocity - RATE * 2 * (expected + 0.5 * velocity)
        expected += velocity
    assert weight == pytest.approx(expected, rel=1e-5)


def test_simulated_workers_learn_with_dropout_and_batch_statistics():
    """Twice, to see that the seed is all there is to chance."""
    x, y = data(512)
    runs = []
    for _ in range(2):
        problem = KerasProblem(
            model(dropout=0.2), x, y, loss=loss(), validation=(x, y), metrics=["sparse_categorical_accuracy"]
        )
        runs.append(
            simulate(
                LocalSGD(communication_window=4),
                problem,
                num_workers=4,
                num_commits=12,
                learning_rate=0.1,
                evaluate_every=6,
            )
        )
    first, again = runs
    assert first.samples.tolist() == [512 * commit for commit in range(13)]
    accuracy = first.metrics["sparse_categorical_accuracy"]
    assert accuracy[0] < 0.6 < 0.8 < accuracy[-1]
    assert first.losses[-1] < first.losses[1] < first.losses[0]
    statistics = first.centers[:, problem.num_trainable :]
    assert np.abs(statistics[-1] - statistics[0]).max() > 0.05
    assert first.centers.tobytes() == again.centers.tobytes()


def test_center_is_evaluated_at_inference_on_all_rows():
    x, y = data()
    network = model()
    problem = KerasProblem(network, x, y, loss=loss(), metrics=["sparse_categorical_accuracy"])
    report = problem.evaluate(problem.initial)
    logits = keras.ops.convert_to_numpy(network(x, training=False)).astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss_of_rows = -np.log(chances[np.arange(len(y)), y])
    assert report["loss"] == pytest.approx(loss_of_rows.mean(), rel=1e-5)
    assert report["sparse_categorical_accuracy"] == pytest.approx((logits.argmax(1) == y).mean())
