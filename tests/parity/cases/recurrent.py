"""Recurrent layers, and sequences with padding."""

from __future__ import annotations

import keras
from keras import layers
from registry import Training, case
from samples import classes, ids, numbers, sgd, targets

from cases.feedforward import classifier


@case()
def lstm() -> Training:
    return classifier((5, 4), layers.LSTM(6))


@case()
def gru_and_simple_rnn() -> Training:
    return classifier((5, 4), layers.GRU(5, return_sequences=True), layers.SimpleRNN(4))


@case()
def bidirectional() -> Training:
    return classifier((5, 4), layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(3))


@case()
def recurrent_dropout_seeded() -> Training:
    return classifier((5, 4), layers.LSTM(6, dropout=0.2, recurrent_dropout=0.2, seed=4))


@case()
def rnn_of_stacked_cells() -> Training:
    return classifier((5, 4), layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)]))


@case()
def conv_lstm() -> Training:
    return classifier((3, 4, 4, 1), layers.ConvLSTM2D(2, 2))


@case(backends=("jax", "tensorflow"))
def stateful_rnn() -> Training:
    """The state goes on from one minibatch to the next, and from one epoch to the next. PyTorch cannot."""
    model = keras.Sequential(
        [keras.Input(batch_shape=(8, 4, 3)), layers.LSTM(5, stateful=True), layers.Dense(1)]
    )
    return Training(
        model, numbers(4, 3, rows=32), targets(1, rows=32), {"optimizer": sgd(), "loss": "mse"}, batch_size=8
    )


@case(everywhere=True)
def embedding_with_mask() -> Training:
    model = keras.Sequential(
        [
            keras.Input((7,), dtype="int32"),
            layers.Embedding(12, 6, mask_zero=True),
            layers.LSTM(5),
            layers.Dense(3, activation="softmax"),
        ]
    )
    return Training(
        model, ids(12, 7), classes(3), {"optimizer": sgd(), "loss": "sparse_categorical_crossentropy"}
    )


@case()
def masking_of_outputs() -> Training:
    """Loss and metrics leave out the masked timesteps."""
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.Masking(0.0), layers.GRU(4, return_sequences=True), layers.Dense(2)]
    )
    x = numbers(5, 3)
    x[::2, 3:] = 0
    return Training(model, x, targets(5, 2), {"optimizer": sgd(), "loss": "mse", "metrics": ["mae"]})
