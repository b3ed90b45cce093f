"""The optimizer's settings that its configuration leaves out, and its state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from distkeras.model.compiling import optimizers_in
from distkeras.model.variables import Array, Tree, value_of


@dataclass(frozen=True)
class Exclusion:
    """Weights that one optimizer excludes from weight decay.

    Attributes:
        index: index of the optimizer in `optimizers_in`.
        pattern: a regular expression for names of weights, or None.
        paths: paths of single weights.
    """

    index: int
    pattern: str | None
    paths: tuple[str, ...]


@dataclass(frozen=True)
class OptimizerState:
    """The parts of an optimizer that its configuration leaves out.

    Attributes:
        exclusions: weights excluded from weight decay.
        values: values of all its variables, in their order; None for an optimizer without a step.
        trained: paths of the weights that it was built for, if these are others than the trainable ones: a
            `train_step` of the user's may step some of them.
        others: the state of further optimizers in attributes of the model, as `other_states` returns it.
    """

    exclusions: tuple[Exclusion, ...] = ()
    values: tuple[Array, ...] | None = None
    trained: tuple[str, ...] = ()
    others: dict[str, Array] = field(default_factory=dict)


def state_of(optimizer: Any, tree: Tree, *, with_values: bool) -> OptimizerState:
    """Return the state of `optimizer`, whose model has the variables of `tree`.

    Args:
        optimizer: a Keras optimizer, or None.
        tree: variables of the model that the optimizer was made for.
        with_values: also return the values of its variables, if it has made a step.
    """
    exclusions = _exclusions_of(optimizer, tree)
    if not with_values or optimizer is None or not optimizer.built or _is_new(optimizer):
        return OptimizerState(exclusions)
    values = tuple(np.array(value_of(variable)) for variable in optimizer.variables)
    return OptimizerState(exclusions, values, _trained_in(optimizer, tree))


def build_optimizer(model: keras.Model, tree: Tree, state: OptimizerState) -> None:
    """Build the optimizer of a compiled `model`, a copy, and restore `state`.

    Values of another set of weights are ignored: the trainable flags have changed since.
    """
    optimizer = model.optimizer
    if optimizer is None:
        return
    chain = optimizers_in(optimizer)
    for exclusion in state.exclusions:
        chain[exclusion.index].exclude_from_weight_decay(
            [tree.variables[path] for path in exclusion.paths],
            None if exclusion.pattern is None else [exclusion.pattern],
        )
    if not optimizer.built:
        some = [tree.variables[path] for path in state.trained]
        optimizer.build(some or model.trainable_variables)
    if state.values is not None:
        set_values(optimizer, state.values)


def set_values(optimizer: Any, values: tuple[Array, ...]) -> bool:
    """Set the variables of `optimizer` if `values` have their shapes; return whether they have."""
    variables = optimizer.variables
    fit = len(variables) == len(values) and all(
        tuple(variable.shape) == value.shape for variable, value in zip(variables, values, strict=True)
    )
    if fit:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return fit


def has_settable_rate(optimizer: Any) -> bool:
    """Return whether `set_learning_rate` can set the learning rate: it is a number, not a schedule's."""
    chain = optimizers_in(optimizer)
    return bool(chain) and all(isinstance(each._learning_rate, keras.Variable) for each in chain)


def set_learning_rate(optimizer: Any, learning_rate: float) -> None:
    """Set the learning rate of `optimizer`, and of those that it wraps. Nothing compiles anew.

    Raises:
        ValueError: the rate is a schedule's, or there is no optimizer.
    """
    if not has_settable_rate(optimizer):
        raise ValueError(
            "Expected an optimizer whose learning rate is a number: the rate of a schedule cannot be "
            f"set. Received: optimizer={optimizer!r}, learning_rate={learning_rate!r}"
        )
    for each in optimizers_in(optimizer):
        each._learning_rate.assign(learning_rate)


def averages_of(optimizer: Any) -> list[tuple[keras.Variable, keras.Variable]]:
    """Return pairs of a weight and the moving average that a built `optimizer` keeps of it (`use_ema`)."""
    return [
        (variable, average)
        for each in optimizers_in(optimizer)
        if each.use_ema and each.built
        for variable, average in zip(
            each._trainable_variables, each._model_variables_moving_average, strict=True
        )
        if average is not None
    ]


def finalize(model: keras.Model) -> None:
    """Set the weights of `model` to the values that its optimizer gives them at the end of a training."""
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for weight, _ in averages_of(model.optimizer):
        # On JAX the two would share a buffer, and the next `fit` would donate it to its step twice.
        weight.assign(np.array(value_of(weight)))


def trained_by(optimizer: Any) -> list[keras.Variable]:
    """Return the variables that `optimizer` was built for, in its order."""
    return list(getattr(optimizer, "inner_optimizer", optimizer)._trainable_variables)


def _trained_in(optimizer: Any, tree: Tree) -> tuple[str, ...]:
    model, paths = tree.layers[""], tree.paths()
    own_step = "train_step" in vars(model) or type(model).train_step is not keras.Model.train_step
    trained = [paths.get(id(variable), "") for variable in trained_by(optimizer)]
    if not own_step or not all(trained) or trained == [paths[id(each)] for each in model.trainable_variables]:
        return ()
    return tuple(trained)


def _is_new(optimizer: Any) -> bool:
    """Whether a built `optimizer` has made no step: its count may have been set back, its averages not."""
    rates = {id(each._learning_rate) for each in optimizers_in(optimizer)}
    return not any(value_of(each).any() for each in optimizer.variables if id(each) not in rates)


def _exclusions_of(optimizer: Any, tree: Tree) -> tuple[Exclusion, ...]:
    found = []
    for index, each in enumerate(optimizers_in(optimizer)):
        # Keras stores them by a key that is only valid in this process.
        keys = getattr(each, "_exclude_from_weight_decay", None) or set()
        pattern = getattr(each, "_exclude_from_weight_decay_pattern", None)
        own = tuple(
            sorted(
                path
                for path, variable in tree.variables.items()
                if isinstance(variable, keras.Variable) and each._var_key(variable) in keys
            )
        )
        if len(own) < len(keys):
            raise ValueError(
                f"{type(each).__name__} excludes {len(keys) - len(own)} weight(s) from weight decay that are "
                "not in this model. Call `exclude_from_weight_decay` with weights of the model that is "
                "trained, or by `var_names`."
            )
        if keys or pattern is not None:
            found.append(Exclusion(index, None if pattern is None else pattern.pattern, own))
    return tuple(found)
