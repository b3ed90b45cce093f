"""Primal averaging around a Keras optimizer, for algorithms that need it: the local step of GPA."""

from __future__ import annotations

from typing import Any, final

import keras

from distkeras.worker.ahead import Ahead, add_ahead


@final
class PrimalAveraging(Ahead):
    """A Keras optimizer that steps `z`, whose moving average `x` are the weights, by the gradient at `y`.

        y = mu_y x + (1 - mu_y) z;  z <- z + s(y);  x <- mu_x x + (1 - mu_x) z

    `s(y)` is what the given optimizer does at `y`, which the model's variables hold. The wrapper keeps
    `v = z - x`, so that `y = x + (1 - mu_y) v`. With `mu_x = 0` it is the given optimizer; with SGD and
    `mu_x = mu_y = mu` it is Nesterov momentum `mu` at `1 - mu` times the learning rate.

    Args:
        inner_optimizer: a Keras optimizer, not built yet.
        mu_x: in [0, 1).
        mu_y: in [0, 1].

    Raises:
        ValueError: `mu_x` or `mu_y` is out of range.

    Reference: Defazio et al. 2025, Smoothing DiLoCo with Primal Averaging (2512.17131).
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, mu_x: float, mu_y: float) -> None:
        if not (0 <= mu_x < 1 and 0 <= mu_y <= 1):
            raise ValueError(
                f"`mu_x` must lie in [0, 1), and `mu_y` in [0, 1]. Received: mu_x={mu_x!r}, mu_y={mu_y!r}"
            )
        super().__init__(inner_optimizer, 1 - mu_y)
        self.mu_x = mu_x

    def step(
        self, variables: list[keras.Variable], before: list[Any], velocities: list[keras.Variable]
    ) -> None:
        ahead, kept = self.momentum, self.mu_x
        if keras.backend.backend() == "torch":
            _step_on_torch(variables, before, velocities, ahead, kept)
            return
        for variable, old, velocity in zip(variables, before, velocities, strict=True):
            distance = variable - old + velocity  # From the old `x` to the new `z`.
            variable.assign(old - ahead * velocity + (1 - kept + ahead * kept) * distance)
            velocity.assign(kept * distance)


def _step_on_torch(
    variables: list[keras.Variable],
    before: list[Any],
    velocities: list[keras.Variable],
    ahead: float,
    kept: float,
) -> None:
    """The same for all weights in one call per operation, as for `Nesterov`."""
    import torch

    with torch.no_grad():
        weights, moved = [each.value for each in variables], [each.value for each in velocities]
        distances = torch._foreach_add(torch._foreach_sub(weights, before), moved)
        torch._foreach_zero_(weights)
        torch._foreach_add_(weights, before)
        torch._foreach_add_(weights, moved, alpha=-ahead)
        torch._foreach_add_(weights, distances, alpha=1 - kept + ahead * kept)
        torch._foreach_zero_(moved)
        torch._foreach_add_(moved, distances, alpha=kept)


def add_averaging(model: keras.Model, averaging: tuple[float, float]) -> None:
    """Put primal averaging around the optimizer of `model`.

    Args:
        model: compiled.
        averaging: `mu_x` and `mu_y`.
    """
    mu_x, mu_y = averaging
    add_ahead(model, lambda optimizer: PrimalAveraging(optimizer, mu_x, mu_y))
