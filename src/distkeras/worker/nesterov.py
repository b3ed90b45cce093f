"""Nesterov momentum around a Keras optimizer, for algorithms that need it: the local step of EAMSGD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import keras

from distkeras.algorithms import Algorithm
from distkeras.worker.ahead import Ahead, add_ahead

OWN_MOMENTUM = ("momentum", "beta_1", "adam_beta_1")
"""Names of momentum in Keras optimizers: SGD and RMSprop, the family of Adam and Lion, Muon."""


@final
class Nesterov(Ahead):
    """A Keras optimizer with Nesterov momentum: `v <- momentum v - eta grad f(x + momentum v); x <- x + v`.

    The variables hold `y = x + momentum v`, the point where the gradient is computed, so that any
    `train_step` works. The given optimizer steps from `y` unchanged, with its own learning rate, clipping,
    weight decay, constraints and state. It arrives at the new `x`, and `v` is the displacement of `x`:

        x' = inner(y);  v' = x' - x = x' - y + momentum v;  y' = x' + momentum v'

    With `SGD(eta)` these are the equations above.

    Args:
        inner_optimizer: a Keras optimizer without momentum, not built yet.
        momentum: in (0, 1).

    Attributes:
        velocities: `v`, as in `Ahead`.

    Raises:
        ValueError: `momentum` is outside (0, 1).

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD, equations of EAMSGD.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, momentum: float) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"`momentum` must lie in (0, 1). Received: momentum={momentum!r}")
        super().__init__(inner_optimizer, momentum)

    def step(
        self, variables: list[keras.Variable], before: list[Any], velocities: list[keras.Variable]
    ) -> None:
        step = _step_on_torch if keras.backend.backend() == "torch" else _step
        step(variables, before, velocities, self.momentum)


def _step(
    variables: list[keras.Variable], before: list[Any], velocities: list[keras.Variable], momentum: float
) -> None:
    """Update `variables` from the new `x` to the new `y`, and update the velocities."""
    for variable, old, velocity in zip(variables, before, velocities, strict=True):
        moved = variable - old + momentum * velocity
        velocity.assign(moved)
        variable.assign(variable + momentum * moved)


def _step_on_torch(
    variables: list[keras.Variable], before: list[Any], velocities: list[keras.Variable], momentum: float
) -> None:
    """`_step` for all weights in one call per operation: one weight at a time takes six times as long."""
    import torch

    with torch.no_grad():
        ahead, moved = [each.value for each in variables], [each.value for each in velocities]
        torch._foreach_mul_(moved, momentum)
        torch._foreach_add_(moved, torch._foreach_sub(ahead, before))
        torch._foreach_add_(ahead, moved, alpha=momentum)


def add_momentum(model: keras.Model, momentum: float) -> None:
    """Add Nesterov momentum to the optimizer of `model`; 0 adds none.

    Args:
        model: compiled.
        momentum: in [0, 1).
    """
    if momentum:
        add_ahead(model, lambda optimizer: Nesterov(optimizer, momentum))


def check_no_momentum(optimizer: keras.optimizers.Optimizer | None, algorithm: Algorithm) -> None:
    """Reject an optimizer to which `algorithm` cannot add its `inner_momentum` or `inner_averaging`.

    Raises:
        ValueError: the algorithm has inner momentum, and the optimizer, or one that it wraps, has its own
            momentum; or the algorithm has one of the two, and the optimizer accumulates gradients, or there
            is none.
    """
    averages = algorithm.inner_averaging is not None
    if algorithm.inner_momentum == 0 and not averages:
        return
    brings = f"{algorithm.name} adds its own Nesterov momentum (momentum={algorithm.inner_momentum})"
    if averages:
        brings = f"{algorithm.name} adds its own primal averaging (mu_x, mu_y = {algorithm.inner_averaging})"
    if optimizer is None:
        raise ValueError(
            f"{brings} to the model's `optimizer`, and this model has none: compile it with one. "
            "Received: optimizer=None"
        )
    settings = dict(_settings(optimizer.get_config()))
    name = type(optimizer).__name__
    for key in OWN_MOMENTUM:
        if settings.get(key) and not averages:
            raise ValueError(
                f"{brings}, so the Keras optimizer must have none: momentum would be applied twice. Give an "
                "optimizer without momentum, such as keras.optimizers.SGD(learning_rate=0.1), or choose "
                f"AEASGD, which takes any optimizer. Received: {name} with {key}={settings[key]!r}"
            )
    if steps := settings.get("gradient_accumulation_steps"):
        raise ValueError(
            f"{brings}, and would apply it at every minibatch, even where the Keras optimizer only "
            "accumulates gradients. Raise `batch_size` instead, or choose AEASGD, which takes any "
            f"optimizer. Received: {name} with gradient_accumulation_steps={steps!r}"
        )


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield all nonzero settings in a configuration, with their names, including nested optimizers."""
    if isinstance(config, dict):
        for name, value in config.items():
            if isinstance(value, dict | list | tuple):
                yield from _settings(value)
            elif value:
                yield name, value
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _settings(value)
