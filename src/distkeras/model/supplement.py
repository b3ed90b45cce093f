"""The state of a model that a `.keras` file does not carry; a copy needs it to become the same model.

Keras saves the configuration and the weights of the layers that it can reach. It silently loses the
trainable flags of layers inside other layers and of single weights, LoRA and quantization of inner layers,
the factors of LoRA, the state of seed generators, the order of variables and layers that were replaced or
quantized after their layer was built, the paths by which optimizers and policies choose variables and layers,
what PyTorch knows of weights and layers and Keras does not, and attributes that no configuration names.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from distkeras.model.attributes import (
    CANNOT_TRAVEL,
    Attributes,
    attributes_of,
    differences,
    dumps,
    loads,
    refuse_methods,
    set_attributes,
    settings_of,
)
from distkeras.model.pytorch import (
    TensorState,
    hooks_of,
    is_wrapped_module,
    set_hooks,
    set_tensor_state,
    tensor_state_of,
)
from distkeras.model.variables import BUCKETS, Array, Tree, tree_of, value_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weight:
    """One variable without its value: the unit by which models are compared."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool

    def __str__(self) -> str:
        state = "trainable" if self.trainable else "not trainable"
        return f"{self.path} {self.shape} {self.dtype}, {state}"


@dataclass(frozen=True)
class Supplement:
    """Each dict is keyed by the path of a layer or variable, as in `tree_of`.

    Attributes:
        quantized: quantization mode of layers.
        lora: rank and alpha of layers with LoRA.
        attributes: attributes of layers.
        settings: settings of variables, such as their regularizer.
        policies: dtype policies of models, which leave theirs out of their configuration.
        layer_flags: `trainable` of every layer.
        variable_flags: `trainable` of every variable.
        tensors: on PyTorch, strides and flags of the tensor of every variable.
        hooks: on PyTorch, a pickle of the hooks of layers and tensors by path; empty if there are none.
        orders: paths of the variables and layers that a layer has itself, in its order. `get_weights` and
            the state of an optimizer have this order.
        names: `path` of layers and variables, as Keras names them. A copy of a `Sequential` lacks its first
            part, and an `OptimizerMap`, `Muon(exclude_layers=)` or `DTypePolicyMap` would choose otherwise.
        values: values of the variables that would differ without them.
    """

    quantized: dict[str, str]
    lora: dict[str, tuple[int, float]]
    attributes: dict[str, Attributes]
    settings: dict[str, Attributes]
    policies: dict[str, Any]
    layer_flags: dict[str, bool]
    variable_flags: dict[str, bool]
    tensors: dict[str, TensorState]
    hooks: bytes
    orders: dict[str, tuple[str, ...]]
    names: dict[str, str | None]
    values: dict[str, Array]

    def apply(self, model: keras.Model) -> Tree:
        """Give `model`, a copy, the state of the given model; return its layers and variables."""
        tree = tree_of(model)
        layers = tree.layers
        for path, mode in self.quantized.items():
            layers[path].quantize(mode)
        for path, (rank, alpha) in self.lora.items():
            layers[path].enable_lora(rank, lora_alpha=alpha)
        for path, policy in self.policies.items():
            layers[path].dtype_policy = keras.saving.deserialize_keras_object(policy)
        if self.quantized or self.lora:
            tree = tree_of(model)
        parts = tree.objects()
        for path, attributes in (*self.attributes.items(), *self.settings.items()):
            if path in parts:
                set_attributes(parts[path], attributes, parts)
        if any(map(is_wrapped_module, tree.layers.values())):  # Another module has other buffers.
            tree = tree_of(model)
            parts = tree.objects()
        for path, flag in self.layer_flags.items():  # Outer layers first: a layer also sets its inner layers.
            layer = tree.layers.get(path)
            if layer is not None and layer.trainable != flag:
                layer.trainable = flag
        for path, flag in self.variable_flags.items():
            variable = tree.variables.get(path)
            if isinstance(variable, keras.Variable) and variable.trainable != flag:
                variable.trainable = flag
        for path, state in self.tensors.items():
            if path in tree.variables:
                set_tensor_state(tree.variables[path].value, state)
        hooks = loads(self.hooks, parts) if self.hooks else {}
        for path, part in _hooked_in(tree).items():
            set_hooks(part, hooks.get(path, {}))
        for path, order in self.orders.items():
            if path in tree.layers:
                _sort_parts(tree.layers[path], [parts[each] for each in order if each in parts])
        if self.names:
            _rename(tree, self.names)
        for path, array in self.values.items():
            if path in tree.variables:
                tree.variables[path].assign(array)
        return tree


def weights_in(tree: Tree) -> tuple[Weight, ...]:
    """Return path, shape, dtype and flag of every variable of `tree`, sorted by path."""
    trainable = {id(variable) for variable in tree.layers[""].trainable_variables}
    return tuple(
        Weight(path, tuple(variable.shape), str(variable.dtype), id(variable) in trainable)
        for path, variable in sorted(tree.variables.items())
    )


def structure_of(tree: Tree) -> Supplement:
    """Return all state of a model that its file may lack, except for values."""
    quantized = {path: _mode_of(layer) for path, layer in tree.layers.items() if _mode_of(layer) is not None}
    paths = {id(part): path for path, part in tree.objects().items()}
    return Supplement(
        quantized={path: str(mode) for path, mode in quantized.items()},
        lora={
            path: (layer.lora_rank, layer.lora_alpha)
            for path, layer in tree.layers.items()
            if getattr(layer, "lora_enabled", False)
        },
        attributes={path: attributes_of(layer, paths) for path, layer in tree.layers.items()},
        settings={path: settings_of(variable, paths) for path, variable in _variables_in(tree).items()},
        policies={
            path: keras.saving.serialize_keras_object(layer.dtype_policy)
            for path, layer in tree.layers.items()
            if isinstance(layer, keras.Model) and _mode_of(layer) is None
        },
        layer_flags={path: bool(layer.trainable) for path, layer in tree.layers.items()},
        variable_flags={path: bool(variable.trainable) for path, variable in tree.variables.items()},
        tensors={
            path: state
            for path, variable in tree.variables.items()
            if (state := tensor_state_of(variable.value)) is not None
        },
        hooks=_packed_hooks_in(tree, paths),
        orders=_orders_in(tree),
        names=_names_in(tree),
        values={},
    )


def supplement_for(structure: Supplement, copy: Tree) -> Supplement:
    """Return the part of `structure` that `copy`, loaded from the file alone, does not have yet."""
    there = structure_of(copy)
    attributes = differences(structure.attributes, there.attributes)
    for path, named in attributes.items():
        owner = f"the layer {path!r}" if path else "the model"
        refuse_methods(named, copy.layers.get(path), owner)
        lost = [name for name in named if named[name] == CANNOT_TRAVEL and name in there.attributes[path]]
        if lost:
            logger.warning("Attributes of %s that cannot be pickled are as in a new one: %s", owner, lost)
    return Supplement(
        quantized={p: mode for p, mode in structure.quantized.items() if p not in there.quantized},
        lora={p: lora for p, lora in structure.lora.items() if p not in there.lora},
        attributes=attributes,
        settings=differences(structure.settings, there.settings),
        policies={
            path: policy
            for path, policy in structure.policies.items()
            if path in there.policies and there.policies[path] != policy
        },
        layer_flags=structure.layer_flags,
        variable_flags=structure.variable_flags,
        tensors=structure.tensors,
        hooks=structure.hooks,
        orders={path: order for path, order in structure.orders.items() if order != there.orders.get(path)},
        names={path: name for path, name in structure.names.items() if name != there.names.get(path)},
        values={},
    )


def values_that_differ(given: Tree, copy: Tree) -> dict[str, Array]:
    """Return the values of `given` for variables whose bits differ in `copy`."""
    found = {}
    for path, variable in given.variables.items():
        other = copy.variables.get(path)
        if other is None or tuple(other.shape) != tuple(variable.shape):
            continue
        value = value_of(variable)
        if not same_bits(value, value_of(other)):
            found[path] = np.array(value)
    return found


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays hold the same bits: NaN equals itself, and 0.0 is not -0.0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind in "OSU":
        return bool((one == other).all())
    one, other = np.ascontiguousarray(one), np.ascontiguousarray(other)
    return bool(np.array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)))


def _hooked_in(tree: Tree) -> dict[str, Any]:
    """Return the layers, and the tensors of the variables."""
    return {**tree.layers, **{path: variable.value for path, variable in _variables_in(tree).items()}}


def _packed_hooks_in(tree: Tree, paths: dict[int, str]) -> bytes:
    hooks = {path: found for path, part in _hooked_in(tree).items() if (found := hooks_of(part))}
    try:
        return dumps(hooks, paths) if hooks else b""
    except Exception as error:
        raise ValueError(
            f"Expected hooks of PyTorch that can be pickled. Received: those of {', '.join(hooks)}, and "
            f"{type(error).__name__}: {error}. Remove them, or let them refer to layers and arrays alone."
        ) from error


def _orders_in(tree: Tree) -> dict[str, tuple[str, ...]]:
    paths = tree.paths() | {id(layer): path for path, layer in tree.layers.items()}
    return {
        path: tuple(paths[id(part)] for parts in _parts_of(layer) for part in parts if id(part) in paths)
        for path, layer in tree.layers.items()
    }


def _names_in(tree: Tree) -> dict[str, str | None]:
    return {path: part.path for parts in (_variables_in(tree), tree.layers) for path, part in parts.items()}


def _variables_in(tree: Tree) -> dict[str, keras.Variable]:
    return {path: cell for path, cell in tree.variables.items() if isinstance(cell, keras.Variable)}


def _rename(tree: Tree, names: dict[str, str | None]) -> None:
    """Give layers and variables the paths, and variables the names, that Keras has given to others."""
    for path, name in names.items():
        if (layer := tree.layers.get(path)) is not None:
            layer._path = name
            if name is not None:  # Variables that the layer makes from now on begin with it.
                layer._parent_path = name.rpartition("/")[0]
        elif isinstance(variable := tree.variables.get(path), keras.Variable) and name is not None:
            variable._path, variable._name = name, name.rpartition("/")[2]
    if keras.backend.backend() == "torch":  # Its parameters are listed by these names.
        for layer in tree.layers.values():
            layer._track_variables()


def _sort_parts(layer: keras.layers.Layer, order: list[Any]) -> None:
    """Give the variables and layers that `layer` has itself the order of `order`."""
    ranks = {id(part): rank for rank, part in enumerate(order)}
    for parts in _parts_of(layer):
        parts.sort(key=lambda part: ranks.get(id(part), len(ranks)))


def _parts_of(layer: keras.layers.Layer) -> list[list[Any]]:
    """Return the lists by which Keras finds the variables of `layer`, in their order."""
    return [*(getattr(layer, bucket) for bucket in BUCKETS), layer._layers]


def _mode_of(layer: keras.layers.Layer) -> Any:
    return getattr(layer, "quantization_mode", None)
