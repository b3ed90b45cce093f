"""Optimizers in the attributes of a model besides the one that it is compiled with, such as those of a GAN.

A class with its own `compile` and `train_step` may have several. Their state belongs to the model as that of
`model.optimizer` does: it travels to the workers, and comes back from worker 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from distkeras.model.compiling import chain_of
from distkeras.model.optimizer import trained_by
from distkeras.model.variables import Array, tree_of, value_of

PREFIX = "optimizer "
"""Begins the name of each value, so that it is no path of a variable."""


def other_states(model: keras.Model) -> dict[str, Array]:
    """Return the state of the optimizers that have been built for variables of `model`.

    Of each optimizer it has the values of its variables, and the places of those that it was built for among
    the sorted paths of the model's variables: the first step of a `train_step` decides which these are.
    """
    others = dict(_other_optimizers(model))
    if not others:  # As in most models: a worker asks after every window.
        return {}
    places = {id(variable): place for place, variable in enumerate(_variables_in(model))}
    found = {}
    for name, optimizer in others.items():
        trained = trained_by(optimizer)
        if not optimizer.built or any(id(variable) not in places for variable in trained):
            continue
        found[f"{PREFIX}{name} for"] = np.array([places[id(variable)] for variable in trained], np.int64)
        for index, variable in enumerate(optimizer.variables):
            found[f"{PREFIX}{name} {index}"] = np.array(value_of(variable))
    return found


def set_other_states(model: keras.Model, states: Mapping[str, Array]) -> None:
    """Give the optimizers of `model`, a copy, the state in `states`; those without one stay as they are."""
    if not states:
        return
    variables = _variables_in(model)
    for name, optimizer in _other_optimizers(model):
        places = states.get(f"{PREFIX}{name} for")
        if places is None:
            continue
        trained = [variables[place] for place in places]
        if not optimizer.built:
            optimizer.build(trained)
        if [id(variable) for variable in trained_by(optimizer)] == [id(variable) for variable in trained]:
            for index, variable in enumerate(optimizer.variables):
                variable.assign(states[f"{PREFIX}{name} {index}"])


def split(variables: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the variables of the model, by path, and apart from them the state of further optimizers."""
    states = {name: value for name, value in variables.items() if name.startswith(PREFIX)}
    return {path: value for path, value in variables.items() if path not in states}, states


def assign_local_state(model: keras.Model, variables: Mapping[str, Array]) -> None:
    """Give `model` the variables and the further optimizers' state that a worker has returned, by path."""
    own, states = split(variables)
    cells = tree_of(model).variables
    for path, value in own.items():
        cells[path].assign(value)
    set_other_states(model, states)


def _variables_in(model: keras.Model) -> list[Any]:
    """Return the variables of `model` in an order that every copy has."""
    return [variable for _, variable in sorted(tree_of(model).variables.items())]


def _other_optimizers(model: keras.Model) -> Iterator[tuple[str, Any]]:
    known = {id(each) for each in chain_of(model)} if model.compiled else set()
    for name, value in sorted(vars(model).items()):
        parts: list[tuple[str, Any]] = [(name, value)]
        if isinstance(value, Mapping):
            parts = [(f"{name}.{key}", part) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            parts = [(f"{name}.{index}", part) for index, part in enumerate(value)]
        for place, part in parts:
            if isinstance(part, keras.optimizers.Optimizer) and id(part) not in known:
                known.add(id(part))
                yield place, part
