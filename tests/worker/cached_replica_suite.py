"""Tests of the cached replica, run by test_cached_replica.py on every backend."""

from __future__ import annotations

import gc
import weakref

import keras
import numpy as np
import pytest

from distkeras.center.orders import Orders
from distkeras.model.randomness import generator_states
from distkeras.model.spec import serialize_model
from distkeras.model.variables import digest_of_value, value_of
from distkeras.model.weights import initial_vector
from distkeras.worker import cached_replica
from distkeras.worker.cached_replica import replica_from_cache
from distkeras.worker.local_state import LocalState

pytestmark = pytest.mark.usefixtures("fresh_process")

BACKEND = keras.backend.backend()
GENERATORS = generator_states()


def frozen(units=4, optimizer=None):
    """A model with statistics, random draws, and an optimizer whose state does not begin with zeros alone."""
    model = keras.Sequential(
        [
            keras.Input((5,), name="rows"),
            keras.layers.Dense(units, name="hidden"),
            keras.layers.BatchNormalization(name="normal"),
            keras.layers.Dropout(0.5, seed=3, name="seeded"),
            keras.layers.Dropout(0.2, name="free"),
            keras.layers.Dense(1, name="last"),
        ]
    )
    optimizer = optimizer or keras.optimizers.Adagrad(
        keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9), initial_accumulator_value=0.3
    )
    model.compile(optimizer, "mse", metrics=["mae"])
    return serialize_model(model), initial_vector(model)


def train(spec, center, worker=0, momentum=0.0):
    """Three steps as a task makes them; the last is not asked for its metrics."""
    draw = np.random.default_rng(1)
    with replica_from_cache(spec, worker, momentum, generators=GENERATORS) as kept_replica:
        replica = kept_replica.replica
        replica.write(center)
        found = []
        for _ in range(3):
            replica.train(draw.normal(size=(4, 5)).astype("f"), draw.normal(size=(4, 1)).astype("f"))
            found.append(replica.metrics() if len(found) < 2 else {})
        return replica, replica.read(), found


def test_kept_replica_trains_bit_for_bit_like_a_new_one():
    spec, center = frozen()
    momentum = 0.9
    new, *first = train(spec, center, 1, momentum)
    compiled = new.num_compilations
    _, *other = train(spec, center, 2, momentum)
    again, *second = train(spec, center, 1, momentum)
    assert again is new
    assert again.num_compilations == compiled
    np.testing.assert_array_equal(first[0], second[0])
    assert first[1] == second[1]
    assert np.abs(first[0] - other[0]).max() > 1e-4
    cached_replica._cache.clear()
    unkept, *third = train(spec, center, 1, momentum)
    assert unkept is not new
    np.testing.assert_array_equal(first[0], third[0])
    assert first[1] == third[1]


def rows_of(step):
    draw = np.random.default_rng(step)
    return draw.normal(size=(4, 5)).astype("f"), draw.normal(size=(4, 1)).astype("f")


def test_local_state_lets_another_process_go_on_bit_for_bit():
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9), use_ema=True)
    spec, _ = frozen(optimizer=adam)
    center = np.linspace(0.1, 0.5, spec.layout.size, dtype=np.float32)

    def run(first, replica, weights):
        replica.write(weights)
        for step in range(first, first + 3):
            replica.train(*rows_of(step))
        return replica.metrics_and_states()[1], replica.read()

    with replica_from_cache(spec, 1, 0.9) as cached:
        cached.replica.collect_metrics()
        states, weights = run(0, cached.replica, center)
        sent = cached.local_state().packed()
        _, expected = run(3, cached.replica, weights)
        whole = cached.local_state()
    cached_replica._cache.clear()
    with replica_from_cache(spec, 1, 0.9) as cached:
        state = LocalState.of(sent)
        for mine, sums in zip(states, state.metrics, strict=True):
            np.testing.assert_array_equal(mine, sums)
        cached.restore(state)
        cached.move_to(3)
        cached.replica.collect_metrics(state.metrics)
        _, last = run(3, cached.replica, weights)
        np.testing.assert_array_equal(last, expected)
        assert cached.local_state().packed() == whole.packed()
        with pytest.raises(ValueError, match="Expected the local state of"):
            cached.restore(LocalState())


class SteppedTwice(keras.Model):
    """A second optimizer, in an attribute, steps the first weight."""

    def compile(self, optimizer, loss, second):
        super().compile(optimizer, loss)
        self.second = second

    def train_step(self, *arguments):
        logs = super().train_step(*arguments)
        weight = self.trainable_weights[0]
        if BACKEND == "torch":
            import torch

            with torch.no_grad():
                self.second.apply([keras.ops.ones_like(weight)], [weight])
        return logs


@pytest.mark.parametrize("trained", [False, True])
def test_local_state_has_the_state_of_further_optimizers(trained):
    inputs = keras.Input((5,))
    model = SteppedTwice(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.Adam(0.1), "mse", keras.optimizers.Adam(0.1))
    if trained:
        model.fit(*rows_of(9), verbose=0)
    spec = serialize_model(model)
    center = initial_vector(model)

    def run(first, cached, weights):
        cached.replica.write(weights)
        for step in range(first, first + 3):
            cached.replica.train(*rows_of(step))
        return cached.replica.read()

    with replica_from_cache(spec, 1, 0.0) as cached:
        weights = run(0, cached, center)
        state = LocalState.of(cached.local_state().packed())
        assert [name for name in state.variables if "second" in name][-1] == "optimizer second 3"
        expected = run(3, cached, weights)
    with replica_from_cache(spec, 1, 0.0) as cached:
        if not trained:
            assert np.abs(run(3, cached, weights) - expected).max() > 1e-4
    with replica_from_cache(spec, 1, 0.0) as cached:
        cached.restore(state)
        np.testing.assert_array_equal(run(3, cached, weights), expected)


def test_whatever_differs_makes_a_new_replica():
    spec, center = frozen()
    first, *_ = train(spec, center)
    assert train(spec, center, momentum=0.5)[0] is not first
    first, *_ = train(spec, center)
    assert train(*frozen(optimizer=keras.optimizers.SGD(0.2)))[0] is not first


def test_replica_of_a_training_that_failed_is_not_kept():
    spec, center = frozen()
    first, *_ = train(spec, center)
    with pytest.raises(ZeroDivisionError), replica_from_cache(spec, 0, 0.0):
        raise ZeroDivisionError
    assert train(spec, center)[0] is not first


@keras.saving.register_keras_serializable("cached_replica_suite")
class Own(keras.layers.Layer):
    """A layer of the user's."""

    def call(self, x):
        return 2.0 * x


def test_code_of_the_user_is_always_made_anew():
    for layers, loss in (([Own()], "mse"), ([], lambda y, p: keras.ops.mean((y - p) ** 2))):
        model = keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(1)])
        model.compile("sgd", loss)
        spec = serialize_model(model)
        with replica_from_cache(spec, 0, 0.0) as kept_first:
            first = kept_first.replica
        with replica_from_cache(spec, 0, 0.0) as kept_second:
            second = kept_second.replica
            assert second is not first


@pytest.mark.parametrize("owner", ["layer", "optimizer"])
def test_code_that_was_set_on_objects_of_keras_is_made_anew_too(owner):
    dense, optimizer = keras.layers.Dense(1), keras.optimizers.SGD(0.1)
    model = keras.Sequential([keras.Input((5,)), dense])
    model.compile(optimizer, "mse")
    if owner == "layer":
        call = dense.call
        dense.call = lambda *arguments, **named: call(*arguments, **named) * 2
    else:
        step = optimizer.update_step
        optimizer.update_step = lambda gradient, variable, rate: step(gradient * 2, variable, rate)
    spec = serialize_model(model)
    with replica_from_cache(spec, 0, 0.0) as first:
        pass
    with replica_from_cache(spec, 0, 0.0) as second:
        assert second is not first


def test_nothing_of_one_training_leaks_into_the_next():
    first, *_ = train(*frozen(units=4))
    weights = [part for weight in first.model.weights for part in (weight, weight.value)]
    gone = [weakref.ref(part) for part in (first, first.model, first.model.optimizer, *weights)]
    del first, weights
    train(*frozen(units=3))
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)
    assert keras.layers.Dense(1).name in ("dense", "dense_1")  # Names are counted anew.


def test_weights_that_nothing_should_change_are_looked_through_once_at_the_end(monkeypatch):
    spec, center = frozen_backbone()
    looked = []

    def digest(cell):
        looked.append(cell)
        return digest_of_value(cell)

    monkeypatch.setattr(cached_replica, "digest_of_value", digest)
    with replica_from_cache(spec, 0, 0.0) as own:
        own.replica.write(center)
        assert {path for path in own.changed_variables() if "hidden" in path} == set()
        fixed = len(own.fixed)
    assert len(looked) == 2 * fixed > 0  # Once as they begin, once as they end.
    with replica_from_cache(spec, 0, 0.0) as same:
        assert same.replica is own.replica
        path, (cell, _) = next(iter(same.fixed.items()))
        cell.assign(value_of(cell) + 1)
        same.replica.load()
        assert path in same.changed_variables()
    assert not cached_replica._cache


def frozen_backbone():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, trainable=False, name="hidden"), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    return serialize_model(model), initial_vector(model)


def linear(optimizer):
    """A model of one weight, whose step moves it by the learning rate."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, loss=lambda y, prediction: keras.ops.mean(prediction))
    return serialize_model(model)


def moves(replica, count):
    """Train `count` steps; return by how much each moved the weight."""
    weights = [replica.read()[0]]
    for _ in range(count):
        replica.train(np.ones((2, 1), "f"), np.zeros((2, 1), "f"))
        weights.append(replica.read()[0])
    return -np.diff(weights)


def test_an_ordered_learning_rate_holds_at_once_without_another_compilation():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=1.0)
    with replica_from_cache(linear(optimizer), 0, 1e-6) as cached:
        replica = cached.replica
        np.testing.assert_allclose(moves(replica, 2), [0.5, 0.5], rtol=1e-4)
        replica.metrics()
        compiled = replica.num_compilations
        cached.obey(Orders(1, learning_rate=0.125), 2)
        np.testing.assert_allclose(moves(replica, 2), [0.125, 0.125], rtol=1e-4)
        assert replica.metrics()["loss"] != 0
        assert replica.num_compilations == compiled
        cached.reset()
        np.testing.assert_allclose(moves(replica, 1), [0.5], rtol=1e-4)  # The next training has its own.


def test_an_ordered_step_moves_the_schedule_and_a_replacement_finds_the_same_place():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([3, 10, 12], [1.0, 0.5, 0.25, 0.125])
    spec = linear(keras.optimizers.SGD(schedule))
    with replica_from_cache(spec, 0, 0.0) as cached:
        np.testing.assert_allclose(moves(cached.replica, 5), [1, 1, 1, 1, 0.5], rtol=1e-5)
        cached.obey(Orders(1, step=8), 5)  # as if the training had begun at step 8
        np.testing.assert_allclose(moves(cached.replica, 1), [0.125], rtol=1e-5)
    with replica_from_cache(spec, 0, 0.0) as cached:
        cached.move_to(2)
        cached.obey(Orders(1, step=8), 2)
        np.testing.assert_allclose(moves(cached.replica, 4), [0.5, 0.25, 0.25, 0.125], rtol=1e-5)


def test_the_rate_of_a_schedule_cannot_be_ordered():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    spec = linear(keras.optimizers.SGD(schedule))
    # The driver is told early; a worker is the last to see it.
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))
    assert not spec.settable_rate
    assert not linear(scaled).settable_rate
    assert linear(keras.optimizers.SGD(0.1)).settable_rate
    with (
        pytest.raises(ValueError, match=r"whose learning rate is a number.*Received: optimizer=.*=0.1"),
        replica_from_cache(spec, 0, 0.0) as cached,
    ):
        cached.obey(Orders(1, learning_rate=0.1), 0)
