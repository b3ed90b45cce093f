"""The outer step of DiLoCo."""

from __future__ import annotations

from distkeras.algorithms.base import Vector


def outer_nesterov(center: Vector, delta: Vector, momentum: Vector, rate: float, beta: float) -> None:
    """Take a Nesterov step: `m <- beta m + d; c <- c + rate (beta m + d)`, in place.

    Args:
        center: `c`.
        delta: `d`, the workers' mean delta; overwritten.
        momentum: `m`, of deltas: the papers', with the opposite sign.
        rate: learning rate of the step.
        beta: decay of the momentum.
    """
    momentum *= beta
    momentum += delta
    delta += beta * momentum
    delta *= rate
    center += delta
