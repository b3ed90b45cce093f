"""Nesterov momentum around a Keras optimizer, for algorithms that need it: the local step of EAMSGD."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import keras
from keras import ops

from distkeras.algorithms import Algorithm

OWN_MOMENTUM = ("momentum", "beta_1", "adam_beta_1")
"""Names of momentum in Keras optimizers: SGD and RMSprop, the family of Adam and Lion, Muon."""


@final
class Nesterov(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras is not typed
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
        velocities: `v`, one variable for each that the optimizer was built with, in their order.

    Raises:
        ValueError: `momentum` is outside (0, 1).

    Reference: Zhang et al. 2015, Deep Learning with Elastic Averaging SGD, equations of EAMSGD.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, momentum: float) -> None:
        if not 0 < momentum < 1:
            raise ValueError(f"`momentum` must lie in (0, 1). Received: momentum={momentum!r}")
        super().__init__(learning_rate=0.0)  # Keras requires one; the inner optimizer's is used.
        self.inner_optimizer = inner_optimizer
        self.momentum = momentum
        self.velocities: list[keras.Variable] = []

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        self.velocities = [self.add_variable_from_reference(each, name="velocity") for each in variables]
        super().build(variables)

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *self.inner_optimizer.variables]

    @property
    def iterations(self) -> Any:
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self) -> Any:
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = learning_rate

    def scale_loss(self, loss: Any) -> Any:
        return self.inner_optimizer.scale_loss(loss)

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        if len(grads) == 0:
            return
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        if not self.built:
            self.build(variables)
        velocities = [self.velocities[self._get_variable_index(each)] for each in variables]
        before = [ops.copy(each) for each in variables]
        self.inner_optimizer.apply(grads, variables)
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
    if momentum == 0:
        return
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Inside the wrapper: a step that it skips for infinite gradients must not change the velocity.
        nesterov = Nesterov(optimizer.inner_optimizer, momentum)
        if optimizer.built:
            nesterov.build(model.trainable_variables)
        optimizer.inner_optimizer = nesterov
    else:
        model.optimizer = Nesterov(optimizer, momentum)


def nesterov_of(model: keras.Model) -> Nesterov | None:
    """Return the `Nesterov` that `add_momentum` has added to `model`, or None."""
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, Nesterov) else None


def check_no_momentum(optimizer: keras.optimizers.Optimizer | None, algorithm: Algorithm) -> None:
    """Reject an optimizer to which `algorithm` cannot add its `inner_momentum`.

    Raises:
        ValueError: the algorithm has inner momentum, and the optimizer, or one that it wraps, has its own
            momentum or accumulates gradients; or there is no optimizer.
    """
    if algorithm.inner_momentum == 0:
        return
    brings = f"{algorithm.name} adds its own Nesterov momentum (momentum={algorithm.inner_momentum})"
    if optimizer is None:
        raise ValueError(
            f"{brings} to the model's `optimizer`, and this model has none: compile it with one. "
            "Received: optimizer=None"
        )
    settings = dict(_settings(optimizer.get_config()))
    name = type(optimizer).__name__
    for key in OWN_MOMENTUM:
        if settings.get(key):
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
