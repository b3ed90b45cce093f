"""Optimizers whose variables are ahead of the weights that workers exchange, around a Keras optimizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from distkeras.model.variables import is_overwritten


class Ahead(keras.optimizers.Optimizer):  # type: ignore[misc]  # Keras is not typed
    """Abstract: a Keras optimizer whose gradients are computed ahead of the weights `x`, at `y = x + k v`.

    The model's variables hold `y`, so that any `train_step` works. The given optimizer steps from `y`
    unchanged, with its own learning rate, clipping, weight decay, constraints and state; `step` makes the
    new `v` and `y` of what it has moved.

    Args:
        inner_optimizer: a Keras optimizer, not built yet.
        momentum: `k`.

    Attributes:
        velocities: `v`, one for each variable that the optimizer was built with and moves, in their order.
            A variable that is overwritten with its gradient has none.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, momentum: float) -> None:
        super().__init__(learning_rate=0.0)  # Keras requires one; the inner optimizer's is used.
        self.inner_optimizer = inner_optimizer
        self.momentum = momentum
        self.velocities: list[keras.Variable] = []

    @abstractmethod
    def step(
        self, variables: list[keras.Variable], before: list[Any], velocities: list[keras.Variable]
    ) -> None:
        """Update `variables`, which the inner optimizer has moved from `before`, and the velocities."""

    def build(self, variables: Sequence[keras.Variable]) -> None:
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        moved = [each for each in variables if not is_overwritten(each)]
        self.velocities = [self.add_variable_from_reference(each, name="velocity") for each in moved]
        self._indices = {self._var_key(each): index for index, each in enumerate(moved)}
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
        moved = [each for each in variables if not is_overwritten(each)]
        velocities = [self.velocities[self._indices[self._var_key(each)]] for each in moved]
        before = [ops.copy(each) for each in moved]
        self.inner_optimizer.apply(grads, variables)
        self.step(moved, before, velocities)


def add_ahead(model: keras.Model, made: Any) -> None:
    """Put `made(optimizer)`, an `Ahead`, around the optimizer of `model`, which is compiled."""
    optimizer = given = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        # Inside the wrapper: a step that it skips for infinite gradients must not change the velocity.
        given = optimizer.inner_optimizer
        ahead = made(given)
        if optimizer.built:
            ahead.build(model.trainable_variables)
        optimizer.inner_optimizer = ahead
    else:
        model.optimizer = ahead = made(optimizer)
    for name, value in list(vars(model).items()):
        if value is given:  # A `train_step` of the user's may step by an attribute of its own.
            setattr(model, name, ahead)


def ahead_of(model: keras.Model) -> Ahead | None:
    """Return the `Ahead` around the optimizer of `model`, or None."""
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer if isinstance(optimizer, Ahead) else None
