"""Tests of the process's generators of random numbers, run by test_randomness.py on every backend."""

from __future__ import annotations

import functools
import random

import keras
import numpy as np
import pytest

from distkeras.model.randomness import generator_states, reseed, set_generators, take_back, undisturbed
from distkeras.model.spec import deserialize_model, serialize_model
from distkeras.model.weights import initial_vector
from distkeras.worker import cached_replica
from distkeras.worker.cached_replica import replica_from_cache
from distkeras.worker.local_state import LocalState

pytestmark = pytest.mark.usefixtures("fresh_process")

BACKEND = keras.backend.backend()
ROWS = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def drawn():
    """One number of each generator."""
    numbers = {
        "python": random.random(),
        "numpy": np.random.rand(),
        "keras": float(keras.random.uniform(())),
    }
    if BACKEND == "torch":
        import torch

        numbers["torch"] = float(torch.rand(()))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        numbers["tensorflow"] = float(tf.random.uniform(()))
    return numbers


class Drawing(keras.layers.Layer):
    """Draws from generators of the process in training: what compiled code can."""

    def call(self, inputs, training=False):
        if not training or BACKEND == "jax":  # Keras refuses it there.
            return inputs
        scale = np.random.rand() + random.random() if BACKEND == "torch" else 1.0
        return inputs + scale * keras.random.normal((4, 5))


def model():
    inner = (Drawing(), keras.layers.Dropout(0.5), keras.layers.Dense(1, kernel_initializer="ones"))
    made = keras.Sequential([keras.Input((5,)), *inner])
    made.compile(keras.optimizers.SGD(0.1), "mse")
    return made


def steps(cached, count=3):
    for _ in range(count):
        cached.replica.train(ROWS, ROWS[:, :1])
    return cached.replica.read()


def trained(spec, center, worker, states):
    cached_replica._cache.clear()
    with replica_from_cache(spec, worker, 0.0, generators=states) as cached:
        cached.replica.write(center)
        return steps(cached)


def test_states_bring_the_same_numbers_back():
    drawn()
    random.gauss(0, 1), np.random.normal()  # Each keeps a second number for its next call.
    states = generator_states()
    first = random.gauss(0, 1), np.random.normal(), drawn()
    keras.utils.set_random_seed(1)
    set_generators(states)
    second = random.gauss(0, 1), np.random.normal(), drawn()
    if BACKEND == "tensorflow":  # It has no state but the seed.
        assert first[2].pop("tensorflow") != second[2].pop("tensorflow")
    assert first == second


@pytest.mark.parametrize("used", [False, True])
def test_every_worker_has_numbers_of_its_own_and_has_them_again(used):
    if used:
        drawn()
    states = generator_states()
    found = []
    for worker in (0, 1, 2, 1, 0):
        keras.utils.set_random_seed(99)
        set_generators(states, worker)
        found.append(drawn())
    assert found[1] == found[3]
    assert found[0] == found[4]
    for name in found[0]:
        assert len({numbers[name] for numbers in found}) == 3, name
    set_generators(states)
    # TensorFlow begins anew.
    assert {k: v for k, v in drawn().items() if k != "tensorflow"} == {
        k: v for k, v in found[0].items() if k != "tensorflow"
    }


def test_numpy_s_generator_of_the_user_s_choice_is_left_alone():
    before = np.random.get_bit_generator()
    np.random.set_bit_generator(np.random.PCG64(3))
    try:
        expected = np.random.get_state(legacy=False)
        states = generator_states()
        assert states["numpy"].size == 0
        for worker in (0, 1):
            set_generators(states, worker)
        assert np.random.get_state(legacy=False) == expected
    finally:
        np.random.set_bit_generator(before)


def test_generators_go_on_where_a_worker_ended_unless_they_went_on_meanwhile():
    sent = generator_states()
    expected = [drawn() for _ in range(3)]
    set_generators(sent)
    drawn()
    ended = generator_states()
    set_generators(sent)
    take_back(ended, sent)
    own = {name: number for name, number in drawn().items() if name != "tensorflow"}
    assert own == {name: expected[1][name] for name in own}
    set_generators(sent)
    random.random()
    mine = random.getstate()
    take_back(ended, sent)
    assert random.getstate() == mine


def test_copies_of_a_model_draw_nothing_from_the_user_s_generators():
    class Table(keras.layers.Dense):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.table = np.random.rand(3) + random.random()

    made = keras.Sequential([keras.Input((5,)), keras.layers.Dropout(0.5), Table(1)])
    made.compile("sgd", "mse")
    before = generator_states()
    spec = serialize_model(made)
    deserialize_model(spec)
    for name, state in generator_states().items():
        np.testing.assert_array_equal(state, before[name], err_msg=name)
    with undisturbed():
        drawn()
    assert generator_states()["python"].tolist() == before["python"].tolist()


def test_worker_zero_draws_what_fit_draws_and_others_draw_other_numbers():
    made = model()
    spec, center = serialize_model(made), initial_vector(made)
    keras.utils.set_random_seed(5)
    states = generator_states()
    found = [trained(spec, center, worker, states) for worker in (0, 1, 2, 1)]
    np.testing.assert_array_equal(found[1], found[3])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[one] - found[other]).max() > 1e-4
    keras.utils.set_random_seed(5)
    for _ in range(3):
        made.train_on_batch(ROWS, ROWS[:, :1])
    np.testing.assert_allclose(found[0], initial_vector(made), rtol=1e-5, atol=1e-6)


def test_another_process_goes_on_with_the_same_numbers():
    made = model()
    spec, center = serialize_model(made), initial_vector(made)
    with replica_from_cache(spec, 1, 0.0, generators=generator_states()) as cached:
        cached.replica.write(center)
        weights = steps(cached)
        sent = cached.local_state().packed()
        expected = steps(cached)
    cached_replica._cache.clear()
    keras.utils.set_random_seed(11)
    with replica_from_cache(spec, 1, 0.0, generators=generator_states()) as cached:
        cached.restore(LocalState.of(sent))
        cached.replica.write(weights)
        np.testing.assert_array_equal(steps(cached), expected)


class OwnNoise:
    """A seed generator in an object that Keras does not look into."""

    def __init__(self, seed):
        self.generator = keras.random.SeedGenerator(seed)

    def __call__(self, weights):
        return keras.ops.sum(weights * keras.random.normal(weights.shape, seed=self.generator))


class NoisyDescent(keras.optimizers.SGD):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.noise = [keras.random.SeedGenerator(4)]

    def update_step(self, gradient, variable, learning_rate):
        noise = keras.random.normal(variable.shape, seed=self.noise[0])
        super().update_step(gradient + noise, variable, learning_rate)


class NoisyTargets(keras.losses.Loss):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.noise = {"targets": OwnNoise(5)}

    def call(self, y_true, y_pred):
        noise = keras.random.normal((4, 1), seed=self.noise["targets"].generator)
        return keras.ops.mean((y_pred - y_true + noise) ** 2, axis=-1)


GLOBAL_NOISE = keras.random.SeedGenerator(6)


def noisy_loss(y_true, y_pred):
    def noise():
        return keras.random.normal((4, 1), seed=GLOBAL_NOISE)

    return keras.ops.mean((y_pred - y_true + noise()) ** 2, axis=-1)


def noise_of_a_closure():
    generator, never = keras.random.SeedGenerator(7), None

    def loss(y_true, y_pred):
        noise = keras.random.normal((4, 1), seed=generator)
        return keras.ops.mean((y_pred - y_true + noise) ** 2, axis=-1) if never is None else never

    return loss


class NoisyLayer(keras.layers.Layer):
    def call(self, inputs, training=False):
        if not training:
            return inputs
        return inputs + keras.random.normal((4, 5), seed=GLOBAL_NOISE)


@pytest.mark.parametrize(
    ("layers", "settings"),
    [
        ([], {"optimizer": NoisyDescent(0.1)}),
        ([], {"loss": NoisyTargets()}),
        ([], {"loss": noisy_loss}),
        ([], {"loss": noise_of_a_closure()}),
        ([], {"loss": functools.partial(noisy_loss)}),
        ([keras.layers.Dense(5, kernel_regularizer=OwnNoise(8), name="hidden")], {}),
        ([NoisyLayer()], {}),
    ],
    ids=["optimizer", "loss", "function", "closure", "partial", "regularizer", "method"],
)
def test_seed_generators_that_keras_does_not_know_differ_among_the_workers_too(layers, settings):
    made = keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(1)])
    made.compile(**{"optimizer": keras.optimizers.SGD(0.1), "loss": "mse", **settings})
    spec, center = serialize_model(made), initial_vector(made)
    found = []
    for worker in (0, 1, 2):
        GLOBAL_NOISE.state.assign(np.array([6, 0], GLOBAL_NOISE.state.dtype))
        found.append(trained(spec, center, worker, {}))
    GLOBAL_NOISE.state.assign(np.array([6, 0], GLOBAL_NOISE.state.dtype))
    for _ in range(3):
        made.train_on_batch(ROWS, ROWS[:, :1])
    np.testing.assert_allclose(found[0], initial_vector(made), rtol=1e-5, atol=1e-6)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(found[one] - found[other]).max() > 1e-4


def other_generators():
    """Generators that a user's function may have, each with a function that draws from it."""
    found = {
        "numpy": (np.random.default_rng(1), lambda generator: generator.random()),
        "numpy with other bits": (np.random.Generator(np.random.MT19937(1)), lambda each: each.random()),
        "numpy's old one": (np.random.RandomState(1), lambda generator: generator.rand()),
        "python": (random.Random(1), lambda generator: generator.random()),
    }
    if BACKEND == "torch":
        import torch

        generator = torch.Generator().manual_seed(1)
        found["torch"] = generator, lambda each: float(torch.rand((), generator=each))
    if BACKEND == "tensorflow":
        import tensorflow as tf

        found["tensorflow"] = tf.random.Generator.from_seed(1), lambda each: float(each.uniform(()))
    return found


@pytest.mark.parametrize("name", other_generators())
def test_generators_of_the_user_s_function_differ_among_the_workers(name):
    def numbers_of(worker):
        generator, draw = other_generators()[name]

        class Holder:
            def __init__(self):
                self.generators = [generator]
                self.vocabulary = dict.fromkeys(range(20_000))

            def draw(self):
                return draw(self.generators[0])

        holder = Holder()

        def function(columns):
            return holder.draw() + len(columns)

        reseed(function, worker)
        return [function({}) for _ in range(2)]

    generator, draw = other_generators()[name]
    assert numbers_of(0) == [draw(generator), draw(generator)]
    assert len({*numbers_of(0), *numbers_of(1), *numbers_of(2)}) == 6
    assert numbers_of(1) == numbers_of(1)
