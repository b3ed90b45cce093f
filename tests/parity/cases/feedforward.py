"""Dense, convolutional and pooling layers, and those that regularize."""

from __future__ import annotations

from dataclasses import replace

import keras
from keras import layers
from registry import Training, case
from samples import classes, numbers, sgd, targets

CROSSENTROPY = "sparse_categorical_crossentropy"


def classifier(shape: tuple[int, ...], *inner: keras.Layer) -> Training:
    """Return the training of a small classifier with the layers `inner`."""
    model = keras.Sequential(
        [keras.Input(shape), *inner, layers.Flatten(), layers.Dense(3, activation="softmax")]
    )
    settings = {"optimizer": sgd(), "loss": CROSSENTROPY, "metrics": ["accuracy"]}
    return Training(model, numbers(*shape), classes(3), settings)


@case(everywhere=True)
def dense() -> Training:
    """With a last minibatch that is not full."""
    training = classifier((6,), layers.Dense(8, activation="relu"))
    return replace(training, x=numbers(6, rows=36), y=classes(3, rows=36))


@case()
def einsum_dense() -> Training:
    return classifier((4, 3), layers.EinsumDense("abc,cd->abd", output_shape=(4, 5), bias_axes="d"))


@case()
def activation_layers() -> Training:
    return classifier(
        (6,), layers.Dense(8), layers.PReLU(), layers.Dense(8), layers.LeakyReLU(), layers.ELU()
    )


@case()
def conv1d() -> Training:
    return classifier((8, 3), layers.Conv1D(4, 3, activation="relu"), layers.MaxPooling1D(2))


@case()
def conv2d() -> Training:
    return classifier(
        (6, 6, 2), layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)
    )


@case()
def conv3d() -> Training:
    return classifier((4, 4, 4, 1), layers.Conv3D(2, 2, activation="relu"), layers.AveragePooling3D(3))


@case()
def conv_depthwise_separable() -> Training:
    return classifier(
        (6, 6, 2),
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"),
        layers.SeparableConv2D(3, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
    )


@case()
def conv1d_depthwise_separable_causal() -> Training:
    return classifier(
        (6, 2),
        layers.Conv1D(3, 2, padding="causal", dilation_rate=2),
        layers.DepthwiseConv1D(2),
        layers.SeparableConv1D(3, 2),
        layers.GlobalMaxPooling1D(),
    )


@case()
def conv_transpose_and_upsampling() -> Training:
    return classifier(
        (3, 3, 2),
        layers.Conv2DTranspose(2, 2, strides=2),
        layers.UpSampling2D(2),
        layers.ZeroPadding2D(1),
        layers.Cropping2D(2),
        layers.AveragePooling2D(2),
    )


@case()
def dropout_seeded() -> Training:
    return classifier((6,), layers.Dense(16, activation="relu"), layers.Dropout(0.3, seed=5))


@case(backends=("jax", "tensorflow"))
def dropout_unseeded() -> Training:
    """Its seed is drawn when it is made; PyTorch's layer draws from the process's own generator instead."""
    return classifier((6, 4), layers.Dense(16), layers.Dropout(0.3), layers.SpatialDropout1D(0.2))


@case()
def noise_seeded() -> Training:
    return classifier(
        (6,),
        layers.GaussianNoise(0.1, seed=1),
        layers.Dense(8),
        layers.GaussianDropout(0.2, seed=2),
        layers.AlphaDropout(0.2, seed=3),
    )


@case()
def regularizers_and_constraints() -> Training:
    return classifier(
        (6,),
        layers.Dense(
            8,
            kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02),
            bias_regularizer="l2",
            activity_regularizer=keras.regularizers.L2(0.01),
            kernel_constraint=keras.constraints.MaxNorm(0.9),
        ),
        layers.ActivityRegularization(l2=0.01),
    )


@case()
def time_distributed() -> Training:
    model = keras.Sequential(
        [
            keras.Input((4, 5)),
            layers.TimeDistributed(layers.Dense(6, activation="tanh")),
            layers.TimeDistributed(layers.BatchNormalization()),
            layers.Dense(2),
        ]
    )
    return Training(model, numbers(4, 5), targets(4, 2), {"optimizer": sgd(), "loss": "mse"})
