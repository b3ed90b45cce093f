"""Attention."""

from __future__ import annotations

import keras
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd


def attending(attention: keras.Layer, *, optimizer: keras.optimizers.Optimizer | None = None) -> Training:
    """Return the training of a classifier around `attention` of a sequence to itself."""
    inputs = keras.Input((6, 8))
    pooled = layers.GlobalAveragePooling1D()(attention(inputs, inputs))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(pooled))
    settings = {"optimizer": optimizer or sgd(), "loss": "sparse_categorical_crossentropy"}
    return Training(model, numbers(6, 8), classes(3), settings)


@case()
def multi_head_attention() -> Training:
    return attending(layers.MultiHeadAttention(2, 4, dropout=0.1, seed=3))


@case()
def grouped_query_attention() -> Training:
    return attending(layers.GroupQueryAttention(4, 4, 2))


@case()
def dot_and_additive_attention() -> Training:
    inputs = keras.Input((6, 8))
    scaled = layers.Attention(use_scale=True)([inputs, inputs])
    added = layers.AdditiveAttention()([scaled, inputs])
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalMaxPooling1D()(added)))
    settings = {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    return Training(model, numbers(6, 8), classes(3), settings)


@case()
def transformer_block() -> Training:
    """Embedding with a mask, causal attention, residuals and norms."""
    inputs = keras.Input((7,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True)(inputs)
    attended = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    x = layers.LayerNormalization()(layers.Add()([x, attended]))
    x = layers.LayerNormalization()(x + layers.Dense(8)(layers.Dense(16, activation="gelu")(x)))
    model = keras.Model(inputs, layers.Dense(12)(x))
    tokens = ids(12, 8)
    settings = {
        "optimizer": sgd(),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "weighted_metrics": ["sparse_categorical_accuracy"],
    }
    weights = (tokens[:, 1:] != 0).astype("float32")
    return Training(model, tokens[:, :-1].copy(), tokens[:, 1:].copy(), settings, sample_weight=weights)
