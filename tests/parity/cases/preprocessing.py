"""Preprocessing layers inside the model, with what they have learned of the data."""

from __future__ import annotations

import keras
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd

from cases.feedforward import classifier


@case()
def normalization_adapted() -> Training:
    layer = layers.Normalization()
    layer.adapt(numbers(6) * 3 + 1)
    return classifier((6,), layer, layers.Dense(8), layers.Rescaling(0.5, offset=0.1))


@case()
def normalization_given() -> Training:
    return classifier((6,), layers.Normalization(mean=0.1, variance=2.0), layers.Dense(8))


@case()
def discretization_given() -> Training:
    return classifier((6,), layers.Discretization([-0.5, 0.0, 0.5], output_mode="one_hot"))


@case(backends=("tensorflow",))
def discretization_adapted() -> Training:
    """Adapting needs TensorFlow."""
    layer = layers.Discretization(num_bins=4, output_mode="one_hot")
    layer.adapt(numbers(6))
    return classifier((6,), layer)


def of_integers(*inner: keras.Layer) -> Training:
    """Return the training of a classifier of integers."""
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), *inner, layers.Dense(3, activation="softmax")]
    )
    return Training(
        model, ids(9, 5), classes(3), {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    )


@case()
def category_encoding() -> Training:
    return of_integers(layers.CategoryEncoding(9, output_mode="count"))


@case(backends=("tensorflow",))
def hashing() -> Training:
    return of_integers(layers.Hashing(7, output_mode="multi_hot"))


@case(backends=("tensorflow",))
def integer_lookup() -> Training:
    return of_integers(layers.IntegerLookup(vocabulary=list(range(1, 9)), output_mode="multi_hot"))


@case()
def random_augmentation_seeded() -> Training:
    return classifier((6, 6, 1), layers.RandomFlip(seed=3), layers.RandomBrightness(0.2, (-1, 1), seed=4))
