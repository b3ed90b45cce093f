"""Models that `fit` has trained before: the trainer goes on from there, as a second `fit` does."""

from __future__ import annotations

from dataclasses import replace

from keras import layers
from keras.optimizers import Adam, schedules
from registry import Training, case
from samples import sgd

from cases.feedforward import classifier
from cases.optimizers import by, still, still_schedule
from cases.precision import mixed_float16_with_loss_scaling


@case(everywhere=True)
def continued_adam() -> Training:
    return replace(by(Adam(0.01, epsilon=0.1)), before=1)


@case(still=still_schedule)
def continued_schedule() -> Training:
    return replace(
        by(sgd(learning_rate=schedules.PiecewiseConstantDecay([3, 9], [0.1, 0.05, 0.0]))), before=2
    )


@case(still=still, backends=("tensorflow", "torch"))  # On JAX Keras's own second `fit` fails.
def continued_ema() -> Training:
    return replace(by(sgd(use_ema=True, ema_momentum=0.9)), before=1)


@case()
def continued_dropout_and_statistics() -> Training:
    training = classifier(
        (6,), layers.Dense(8), layers.BatchNormalization(momentum=0.8), layers.Dropout(0.3, seed=5)
    )
    return replace(training, before=1)


@case(tolerance=2e-3)
def continued_loss_scaling() -> Training:
    return replace(mixed_float16_with_loss_scaling(), before=1)
