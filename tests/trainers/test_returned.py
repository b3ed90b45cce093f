"""The model that comes back: the user's own initializers, and every weight, however it was made."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distkeras
from distkeras.model import trained_copy
from distkeras.model.variables import tree_of
from distkeras.model.weights import initial_vector


class Own(keras.layers.Layer):
    """A layer that makes others in its `build`, as attention does."""

    def __init__(self, kernel_initializer="he_normal", **options):
        super().__init__(**options)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, shape):
        self.inner = keras.layers.Dense(3, kernel_initializer=self.kernel_initializer)
        self.inner.build(shape)

    def call(self, inputs):
        return self.inner(inputs)

    def get_config(self):
        known = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | {"kernel_initializer": known}


class Reads(keras.layers.Dense):
    """A layer that reads its weights by code of its own."""

    def load_own_variables(self, store):
        super().load_own_variables(store)


def shared():
    normal = keras.initializers.RandomNormal(stddev=0.3, seed=5)
    first = keras.layers.Dense(3, kernel_initializer=normal, bias_initializer="ones")
    return keras.Sequential([keras.Input((3,)), first, keras.layers.Dense(2, kernel_initializer=normal)])


def recurrent():
    inner = keras.layers.LSTM(3, recurrent_initializer="orthogonal", unit_forget_bias=True)
    return keras.Sequential([keras.Input((4, 2)), keras.layers.Bidirectional(inner), keras.layers.Dense(1)])


def attention():
    inputs = keras.Input((4, 6))
    attended = keras.layers.MultiHeadAttention(2, 3, kernel_initializer="he_uniform")(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LayerNormalization()(attended)))


def normalized():
    layers = [
        keras.layers.BatchNormalization(gamma_initializer="he_normal"),
        keras.layers.Dropout(0.5, seed=1),
    ]
    frozen = keras.layers.Dense(3, trainable=False, kernel_initializer="lecun_normal")
    return keras.Sequential(
        [keras.Input((3,)), frozen, *layers, keras.layers.Dense(1, bias_initializer="ones")]
    )


def nested():
    return keras.Sequential([keras.Input((3,)), shared(), Own(), keras.layers.Dense(1)])


def with_vocabulary():
    words = keras.layers.StringLookup(vocabulary=["a", "b"])
    return keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Embedding(3, 2)])


def with_code():
    return keras.Sequential(
        [keras.Input((3,)), Reads(2, kernel_initializer="he_normal"), keras.layers.Dense(1)]
    )


def initializers_of(model):
    """Return class and configuration of every initializer of every layer, inner ones too."""
    return {
        (path, name): (type(value), value.get_config())
        for path, layer in tree_of(model).layers.items()
        for name, value in vars(layer).items()
        if isinstance(value, keras.initializers.Initializer)
    }


EMPTY = (shared, recurrent, attention, normalized, nested)
READ = (with_vocabulary, with_code)


@pytest.mark.parametrize("make", EMPTY + READ, ids=lambda make: make.__name__)
def test_a_returned_model_has_the_users_initializers_and_the_centers_weights(make, monkeypatch):
    read, deserialize_model = [], trained_copy.deserialize_model
    monkeypatch.setattr(
        trained_copy, "deserialize_model", lambda spec: read.append(spec) or deserialize_model(spec)
    )
    given = make()
    draw = np.random.default_rng(3)
    for weight in given.weights:
        if "float" in str(weight.dtype):
            weight.assign(draw.normal(size=weight.shape))
    trainer = distkeras.DOWNPOUR(given, "adam", "mse", custom_objects={"Own": Own, "Reads": Reads})
    vector = initial_vector(given) + np.float32(0.5)
    back = trainer._given.trained(vector)
    assert bool(read) == (make in READ)  # The weights were read from the file only where they must be.
    assert initializers_of(back) == initializers_of(given) != {}
    np.testing.assert_array_equal(initial_vector(back), vector)


def test_layers_that_share_an_initializer_share_one_and_not_the_users():
    given = shared()
    back = distkeras.DOWNPOUR(given, "sgd", "mse")._given.trained(initial_vector(given))
    first, second = (layer.kernel_initializer for layer in back.layers)
    assert first is second
    assert first is not given.layers[0].kernel_initializer
    np.testing.assert_array_equal(first((2, 2)), given.layers[0].kernel_initializer((2, 2)))


def test_weights_that_do_not_move_come_back_as_they_went_out():
    given = normalized()
    frozen = given.layers[0].kernel
    before = np.array(frozen)
    trainer = distkeras.DOWNPOUR(given, "sgd", "mse")
    vector = trainer._given.first_vector()
    frozen.assign(before + 1)  # While it trains, say.
    np.testing.assert_array_equal(np.array(trainer._given.trained(vector).layers[0].kernel), before)
