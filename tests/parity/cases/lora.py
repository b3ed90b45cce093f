"""LoRA and quantized layers."""

from __future__ import annotations

import keras
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd, targets

from cases.attention import attending


@case()
def lora_dense() -> Training:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    model.layers[0].enable_lora(2)
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def lora_embedding_and_einsum() -> Training:
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            layers.Embedding(9, 6),
            layers.EinsumDense("abc,cd->abd", output_shape=(5, 4), bias_axes="d"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.layers[0].enable_lora(2)
    model.layers[1].enable_lora(3, lora_alpha=4)
    return Training(
        model, ids(9, 5), classes(3), {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    )


@case()
def lora_convolution() -> Training:
    model = keras.Sequential([keras.Input((5, 5, 2)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(1)])
    model.layers[0].enable_lora(2)
    return Training(model, numbers(5, 5, 2), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(everywhere=True)
def lora_attention() -> Training:
    attention = layers.MultiHeadAttention(2, 4)
    training = attending(attention)
    for projection in (attention._query_dense, attention._value_dense):
        projection.enable_lora(2)
    return training


@case()
def lora_in_a_nested_model() -> Training:
    base = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.BatchNormalization()], name="base")
    model = keras.Sequential([keras.Input((6,)), base, layers.Dense(1)])
    base.layers[0].enable_lora(2)
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def lora_on_one_layer_of_a_frozen_model() -> Training:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(6), layers.Dense(1)])
    model.layers[0].trainable = False
    model.layers[1].enable_lora(2)
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def quantized_base_with_a_head() -> Training:
    """Weights of int8, which do not train, and a head that does."""
    base = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh")], name="base")
    base.quantize("int8")
    model = keras.Sequential([keras.Input((6,)), base, layers.Dense(1)])
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case()
def quantized_with_lora() -> Training:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    model.layers[0].enable_lora(2)
    model.layers[0].quantize("int8")
    return Training(model, numbers(6), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(everywhere=True)
def float8_layers() -> Training:
    """The gradients of the scales and of the history of the largest numbers are their new values."""
    model = keras.Sequential(
        [keras.Input((5, 4)), layers.EinsumDense("abc,cd->abd", (5, 6)), layers.Flatten(), layers.Dense(1)]
    )
    model.layers[0].quantize("float8")
    model.layers[2].quantize("float8")
    return Training(model, numbers(5, 4), targets(1), {"optimizer": sgd(), "loss": "mse"})


@case(backends=("jax", "torch"))  # On TensorFlow `fit` raises a ValueError at its end.
def float8_with_accumulated_gradients_and_averages() -> Training:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, activation="tanh"), layers.Dense(1)])
    model.layers[0].quantize("float8")
    optimizer = sgd(gradient_accumulation_steps=3, use_ema=True)
    return Training(model, numbers(6), targets(1), {"optimizer": optimizer, "loss": "mse"})
