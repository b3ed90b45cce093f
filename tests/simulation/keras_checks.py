"""Run as a script under one Keras backend: compares `KerasProblem` with Keras itself; prints JSON."""

from __future__ import annotations

import json

import keras
import numpy as np

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


def distance_from_keras(optimizer_name):
    """How far one simulated worker ends from Keras's own training on the same minibatches."""
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
    moved = np.abs(result.center - problem.initial).max()
    problem.load(result.center)
    return {
        "distance": float(np.abs(result.center - flat(reference)).max()),
        "moved": float(moved),
        "steps": len(problem.rows),
    }


def nesterov():
    """One linear weight by mean squared error: the rule's momentum against the formula."""
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
    return {"weight": float(weight), "expected": expected}


def learning():
    """Four workers with dropout and statistics; twice, to see that the seed is all there is to chance."""
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
    statistics = first.centers[:, problem.num_trainable :]
    return {
        "accuracy": first.metrics["sparse_categorical_accuracy"].tolist(),
        "losses": first.losses.tolist(),
        "samples": first.samples.tolist(),
        "statistics_moved": float(np.abs(statistics[-1] - statistics[0]).max()),
        "same": first.centers.tobytes() == again.centers.tobytes(),
    }


def evaluation():
    """The loss and the metric of a center against Keras's `evaluate`."""
    x, y = data()
    network = model()
    problem = KerasProblem(network, x, y, loss=loss(), metrics=["sparse_categorical_accuracy"])
    report = problem.evaluate(problem.initial)
    logits = keras.ops.convert_to_numpy(network(x, training=False)).astype(float)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return {
        "loss": report["loss"],
        "accuracy": report["sparse_categorical_accuracy"],
        "expected_loss": float(-np.log(chances[np.arange(len(y)), y]).mean()),
        "expected_accuracy": float((logits.argmax(1) == y).mean()),
    }


if __name__ == "__main__":
    checks = {
        "sgd": distance_from_keras("sgd"),
        "adam": distance_from_keras("adam"),
        "nesterov": nesterov(),
        "learning": learning(),
        "evaluation": evaluation(),
    }
    print("\n" + json.dumps(checks))
