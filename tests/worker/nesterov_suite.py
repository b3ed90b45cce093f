"""Tests of Nesterov momentum in the worker, run by test_nesterov.py on every backend."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest

from distkeras.algorithms import EAMSGD, GPA
from distkeras.center import Center, CenterConfig
from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.model.weights import initial_vector
from distkeras.simulation import KerasProblem, simulate
from distkeras.worker.ahead import ahead_of
from distkeras.worker.backends import make_replica
from distkeras.worker.loop import Loop
from distkeras.worker.minibatch import Minibatch
from distkeras.worker.nesterov import Nesterov, add_momentum
from distkeras.worker.primal_averaging import PrimalAveraging, add_averaging

RATE, MOMENTUM = 0.05, 0.9


def linear_model(**settings):
    """Least squares in 3 weights, which begin at 1."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", **settings)
    return keras.Sequential([keras.Input((3,)), dense])


def deep_model():
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(6, activation="tanh"), keras.layers.BatchNormalization(momentum=0.8)]
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])


def looking_ahead(model, optimizer, momentum=MOMENTUM):
    copy = deserialize_model(serialize_model(model, optimizer, "mse"))
    add_momentum(copy, momentum)
    return make_replica(copy)


def minibatches(count, rows=8):
    draw = np.random.default_rng(3)
    for _ in range(count):
        x = draw.normal(size=(rows, 3)).astype(np.float32)
        yield x, x @ np.array([[0.5], [-1.0], [2.0]], np.float32)


def slope(weights, x, y):
    """Gradient of the mean squared error of `linear_model`."""
    return 2 * x.T @ (x @ weights - y.ravel()) / len(x)


def velocity_of(replica):
    replica.sync()
    return np.concatenate(
        [np.ravel(keras.ops.convert_to_numpy(each)) for each in ahead_of(replica.model).velocities]
    )


def test_weights_follow_the_recursion_of_the_paper_through_exchanges():
    replica = looking_ahead(linear_model(), keras.optimizers.SGD(RATE))
    weights, velocity, center = np.ones(3), np.zeros(3), np.full(3, 0.25)
    for step, (x, y) in enumerate(minibatches(12)):
        replica.train(x, y)
        velocity = MOMENTUM * velocity - RATE * slope(weights + MOMENTUM * velocity, x, y)
        weights = weights + velocity
        np.testing.assert_allclose(replica.read(), weights, rtol=1e-4, atol=1e-5)
        if step % 4 == 3:
            force = 0.5 * (weights - center)
            weights, center = weights - force, center + force
            replica.write(replica.read() - force.astype(np.float32))
            np.testing.assert_allclose(velocity_of(replica), velocity, rtol=1e-4, atol=1e-5)
    assert np.abs(weights - [0.5, -1.0, 2.0]).max() < 1.0
    assert np.abs(velocity).max() > 0.01


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": RATE},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(RATE, 2, 0.8), "clipnorm": 0.05},
    ],
    ids=["constant", "schedule_and_clipping"],
)
def test_the_models_variables_are_those_of_keras_nesterov(options):
    model = deep_model()
    replica = looking_ahead(model, keras.optimizers.SGD(**options))
    nesterov = keras.optimizers.SGD(**options, momentum=MOMENTUM, nesterov=True)
    reference = make_replica(deserialize_model(serialize_model(model, nesterov, "mse")))
    for x, y in minibatches(6):
        replica.train(x, y)
        reference.train(x, y)
    replica.sync()
    np.testing.assert_allclose(initial_vector(replica.model), reference.read(), rtol=1e-4, atol=1e-6)
    assert np.abs(replica.read() - reference.read()).max() > 1e-3  # the weights lie behind
    optimizer = replica.model.optimizer
    assert int(optimizer.iterations) == int(optimizer.inner_optimizer.iterations) == 6


def test_written_weights_are_read_again_and_the_velocity_stays(monkeypatch):
    replica = looking_ahead(deep_model(), keras.optimizers.SGD(RATE))
    for x, y in minibatches(3):
        replica.train(x, y)
    velocity = velocity_of(replica)
    assert np.abs(velocity).max() > 0.01
    written = np.arange(replica.layout.size, dtype=np.float32)
    replica.write(written)
    np.testing.assert_allclose(replica.read(), written, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(velocity_of(replica), velocity)
    ahead = initial_vector(replica.model)
    count = replica.layout.num_trainable
    np.testing.assert_allclose(ahead[:count], written[:count] + MOMENTUM * velocity, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ahead[count:], written[count:])  # statistics have no velocity
    if keras.backend.backend() == "jax":  # elsewhere than on the CPU the device joins the weights
        monkeypatch.setattr("jax.default_backend", lambda: "gpu")
        np.testing.assert_allclose(replica.read(), written, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "wrapped", [lambda each: Nesterov(each, 0.5), lambda each: PrimalAveraging(each, 0.9, 0.5)]
)
def test_weights_that_the_optimizer_overwrites_have_no_velocity(wrapped):
    """The first step with momentum is computed where one without is, so it overwrites with the same."""
    plain, model = deep_model(), deep_model()
    x, y = next(minibatches(1))
    for each, optimizer in (
        (plain, keras.optimizers.SGD(RATE)),
        (model, wrapped(keras.optimizers.SGD(RATE))),
    ):
        each.layers[0].quantize("float8")
        each.compile(optimizer, "mse")
        each.train_on_batch(x, y)
    overwritten = [
        (one, other)
        for one, other in zip(plain.trainable_variables, model.trainable_variables, strict=True)
        if other.overwrite_with_gradient
    ]
    assert len(overwritten) == 6
    assert len(model.optimizer.velocities) == len(model.trainable_variables) - 6
    for one, other in overwritten:
        assert keras.ops.convert_to_numpy(other).any()
        np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (one, other)))


def test_a_constraint_holds_of_the_weights_that_are_sent():
    model = linear_model(kernel_constraint="non_neg")
    replica = looking_ahead(model, keras.optimizers.SGD(0.2))
    seen = []
    for x, y in minibatches(8):
        replica.train(x, y)
        seen.append(replica.read())
    assert np.min(seen) == pytest.approx(0.0, abs=1e-6)  # the second weight would be -1
    assert np.abs(np.diff(seen, axis=0)).max() > 0.01


def test_an_optimizer_of_another_kind_gets_momentum_too():
    replica = looking_ahead(linear_model(), keras.optimizers.Adagrad(0.1, epsilon=0.0))
    weights, velocity, squares = np.ones(3), np.zeros(3), np.full(3, 0.1)
    for x, y in minibatches(5):
        gradient = slope(weights + MOMENTUM * velocity, x, y)
        squares += gradient**2
        velocity = MOMENTUM * velocity - 0.1 * gradient / np.sqrt(squares)
        weights = weights + velocity
        replica.train(x, y)
    np.testing.assert_allclose(replica.read(), weights, rtol=1e-4, atol=1e-5)


def test_a_row_of_an_embedding_goes_on_with_its_velocity_when_it_is_not_looked_up():
    embedding = keras.layers.Embedding(3, 1, embeddings_initializer="ones")
    model = keras.Sequential([keras.Input((1,), dtype="int32"), embedding, keras.layers.Flatten()])
    replica = looking_ahead(model, keras.optimizers.SGD(RATE), momentum=0.5)
    zero = np.zeros((1, 1), np.float32)
    replica.train(np.array([[0]], np.int32), zero)
    np.testing.assert_allclose(replica.read(), [0.9, 1.0, 1.0], rtol=1e-6)
    replica.train(np.array([[1]], np.int32), zero)
    np.testing.assert_allclose(replica.read(), [0.85, 0.9, 1.0], rtol=1e-6)


def test_a_step_skipped_for_infinite_gradients_leaves_weights_and_velocity():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=4.0)
    replica = looking_ahead(linear_model(), scaled)
    plain = looking_ahead(linear_model(), keras.optimizers.SGD(RATE))
    for x, y in minibatches(3):
        replica.train(x, y)
        plain.train(x, y)
    np.testing.assert_allclose(replica.read(), plain.read(), rtol=1e-5)
    before, velocity = replica.read(), velocity_of(replica)
    replica.train(np.full_like(x, np.inf), y)
    np.testing.assert_array_equal(replica.read(), before)
    np.testing.assert_array_equal(velocity_of(replica), velocity)


def test_the_learning_rate_is_that_of_the_given_optimizer():
    optimizer = Nesterov(keras.optimizers.SGD(0.25), MOMENTUM)
    assert float(optimizer.learning_rate) == 0.25
    optimizer.learning_rate = 0.5
    assert float(optimizer.inner_optimizer.learning_rate) == 0.5


def test_no_momentum_leaves_the_optimizer_as_it_is():
    replica = looking_ahead(linear_model(), keras.optimizers.Adam(RATE), momentum=0.0)
    assert type(replica.model.optimizer).__name__ == "Adam"
    assert ahead_of(replica.model) is None


@pytest.mark.parametrize("momentum", [-0.1, 0.0, 1.0])
def test_momentum_outside_its_interval_is_refused(momentum):
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\). Received: momentum="):
        Nesterov(keras.optimizers.SGD(RATE), momentum)


class Remembering(KerasProblem):
    """Keeps the rows of every minibatch, in order."""

    rows = ()

    def _rows(self, replica):
        rows = super()._rows(replica)
        self.rows = (*self.rows, rows)
        return rows


class ListFeed:
    """One epoch of the given minibatches."""

    def __init__(self, minibatches):
        self.minibatches = minibatches

    def epoch(self, epoch, start=0):
        yield from self.minibatches[start:]


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        (EAMSGD(3, rho=3.0, learning_rate=0.1, momentum=MOMENTUM), lambda: keras.optimizers.SGD(RATE)),
        (GPA(3, mu_x=0.8, mu_y=0.6), lambda: keras.optimizers.Adam(RATE)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_one_worker_moves_the_center_as_in_the_simulator(rule, made):
    (data,) = minibatches(1, rows=48)
    model = deep_model()
    initial = initial_vector(model)
    problem = Remembering(
        deserialize_model(serialize_model(model, "sgd", "mse")),
        *data,
        loss="mse",
        batch_size=8,
        optimizer=None if rule.inner_momentum else made(),  # Without one it is gradient descent.
    )
    simulated = simulate(rule, problem, num_workers=1, num_commits=4, learning_rate=RATE)

    copy = deserialize_model(serialize_model(model, made(), "mse"))
    if rule.inner_averaging is None:
        add_momentum(copy, rule.inner_momentum)
    else:
        add_averaging(copy, rule.inner_averaging)
    replica = make_replica(copy)
    config = CenterConfig(rule, num_trainable=replica.layout.num_trainable)
    center = Center(config, initial, clock=itertools.count().__next__)

    def call(request):
        ((_, reply),) = center.handle(request)
        return reply

    x, y = data
    feed = ListFeed([Minibatch(x[rows], y[rows], None, len(rows)) for rows in problem.rows])
    Loop(replica, feed, rule, call, worker=0, num_epoch=1).run()
    assert center.num_updates == 4
    assert np.abs(center.snapshot() - initial).max() > 0.05
    np.testing.assert_allclose(center.snapshot(), simulated.center, rtol=1e-4, atol=1e-5)


def averaged(model, optimizer, mu_x, mu_y):
    copy = deserialize_model(serialize_model(model, optimizer, "mse"))
    add_averaging(copy, (mu_x, mu_y))
    return make_replica(copy)


def test_primal_averaging_of_adam_follows_its_recursion_through_exchanges():
    mu_x, mu_y = 0.8, 0.6
    model = linear_model()
    replica = averaged(model, keras.optimizers.Adam(RATE), mu_x, mu_y)
    adam = make_replica(deserialize_model(serialize_model(model, keras.optimizers.Adam(RATE), "mse")))
    x_weights, z = np.ones(3), np.ones(3)
    for step, (x, y) in enumerate(minibatches(9)):
        replica.train(x, y)
        ahead = mu_y * x_weights + (1 - mu_y) * z
        adam.write(ahead.astype(np.float32))
        adam.train(x, y)
        z = z + adam.read() - ahead
        x_weights = mu_x * x_weights + (1 - mu_x) * z
        np.testing.assert_allclose(replica.read(), x_weights, rtol=1e-4, atol=1e-5)
        if step % 4 == 3:  # An exchange moves x, and z with it.
            replica.write(replica.read() - np.float32(0.25))
            x_weights, z = x_weights - 0.25, z - 0.25
    assert np.abs(x_weights - z).max() > 0.01


def test_primal_averaging_of_sgd_is_nesterov_at_one_minus_mu_times_the_rate():
    model, mu = deep_model(), 0.9
    ours = averaged(model, keras.optimizers.SGD(RATE / (1 - mu)), mu, mu)
    theirs = looking_ahead(model, keras.optimizers.SGD(RATE), mu)
    for x, y in minibatches(6):
        ours.train(x, y)
        theirs.train(x, y)
    np.testing.assert_allclose(ours.read(), theirs.read(), rtol=1e-3, atol=1e-5)


def test_primal_averaging_without_an_average_is_the_optimizer_itself():
    model = deep_model()
    ours = averaged(model, keras.optimizers.SGD(RATE), 0.0, 0.7)
    plain = make_replica(deserialize_model(serialize_model(model, keras.optimizers.SGD(RATE), "mse")))
    for x, y in minibatches(4):
        ours.train(x, y)
        plain.train(x, y)
    np.testing.assert_allclose(ours.read(), plain.read(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("values", [(1.0, 0.5), (-0.1, 0.5), (0.5, 1.1)])
def test_senseless_averaging_is_refused(values):
    with pytest.raises(ValueError, match="`mu_x` must lie in"):
        PrimalAveraging(keras.optimizers.SGD(RATE), *values)
