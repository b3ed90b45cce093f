"""Layers that normalize, with statistics of their own and without."""

from __future__ import annotations

from keras import layers
from registry import Training, case

from cases.feedforward import classifier


@case(everywhere=True)
def batch_norm() -> Training:
    return classifier((6,), layers.Dense(8), layers.BatchNormalization(momentum=0.8), layers.ReLU())


@case()
def batch_norm_convolutional() -> Training:
    return classifier((5, 5, 2), layers.Conv2D(4, 3), layers.BatchNormalization(scale=False), layers.ReLU())


@case()
def layer_norm() -> Training:
    return classifier((4, 6), layers.Dense(8), layers.LayerNormalization(), layers.RMSNormalization())


@case()
def group_and_unit_norm() -> Training:
    return classifier((4, 6), layers.Dense(8), layers.GroupNormalization(2), layers.UnitNormalization())


@case()
def spectral_norm() -> Training:
    return classifier((6,), layers.SpectralNormalization(layers.Dense(8), power_iterations=2))
