"""The variables of a model by their paths of attributes: the names of weights throughout the library.

`keras.Variable.path` cannot serve: two weights can share it, and it changes when a model is saved and loaded.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

Plain = bool | int | float | str | None
"""Types of attributes that need no conversion to travel."""

LAST = ("_layers", "_functional", "_operations", "_seed_generators")
"""Keras's own lists: if a user's attribute leads to the same object, that attribute names it."""

BUCKETS = ("_trainable_variables", "_non_trainable_variables")
"""Variables that no attribute reaches are named by their index in these."""


@final
class Buffer:
    """A tensor of a wrapped PyTorch module that is not a parameter, such as a running mean.

    Args:
        module: the module that holds it.
        name: name of the buffer in `module`.
    """

    trainable = False

    def __init__(self, module: Any, name: str) -> None:
        self._module = module
        self._name = name

    @property
    def value(self) -> Any:
        """The tensor, which the module may replace."""
        return getattr(self._module, self._name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> str:
        """Keras's name of the tensor's type."""
        return str(self.value.dtype).removeprefix("torch.")

    @property
    def is_persistent(self) -> bool:
        """Whether PyTorch saves it with the module."""
        return self._name not in self._module._non_persistent_buffers_set

    def assign(self, value: Any) -> None:
        """Set the tensor's elements."""
        import torch

        with torch.no_grad():
            self.value.copy_(torch.as_tensor(np.asarray(value)))


Cell: TypeAlias = keras.Variable | Buffer
"""An object that holds an array of the model's state."""


@dataclass
class Tree:
    """The layers and the variables of one model, by path.

    Attributes:
        layers: every layer; the model itself has the path "".
        variables: every variable and buffer.
        owners: the layer that made each variable or buffer.
    """

    layers: dict[str, keras.layers.Layer] = field(default_factory=dict)
    variables: dict[str, Cell] = field(default_factory=dict)
    owners: dict[str, keras.layers.Layer] = field(default_factory=dict)

    def path_of(self, variable: Cell) -> str:
        """Return the path of one of the variables.

        Raises:
            KeyError: it is not one of them.
        """
        for path, each in self.variables.items():
            if each is variable:
                return path
        raise KeyError(getattr(variable, "path", variable))

    def paths(self) -> dict[int, str]:
        """Return the paths by the `id` of their variables."""
        return {id(variable): path for path, variable in self.variables.items()}

    def objects(self) -> dict[str, Any]:
        """Return all that Keras tracks in the model, by path: variables, layers, seed generators, metrics."""
        found: dict[str, Any] = {}
        for path, layer in self.layers.items():
            for kind in ("_seed_generators", "_metrics"):
                for index, part in enumerate(getattr(layer, kind, ())):
                    found[f"{path} {kind} {index}"] = part
        return {**found, **self.variables, **self.layers}


def tree_of(model: keras.Model) -> Tree:
    """Return the layers and variables that the attributes of a built `model` lead to.

    Layers of functional and sequential models are named by their class, with a number where there are
    several; items of a list or tuple are named by their index. An object with two paths has the first.
    """
    tree, walker = Tree(), _Walker()
    walker.walk(model, "", None, tree)
    reached = {id(variable) for variable in tree.variables.values()}
    for index, variable in enumerate(model.variables):
        if id(variable) not in reached:  # A layer that hides its variables.
            tree.variables[f"variables/{index}"] = variable
            tree.owners[f"variables/{index}"] = model
    return tree


class _Walker:
    def __init__(self) -> None:
        self._seen: set[int] = set()

    def walk(self, value: Any, path: str, owner: keras.layers.Layer | None, tree: Tree) -> None:
        if isinstance(value, str | bytes | int | float | np.ndarray | None) or id(value) in self._seen:
            return
        if isinstance(value, keras.Variable):
            self._seen.add(id(value))
            if owner is not None:
                _put(tree, path, value, owner)
        elif isinstance(value, keras.layers.Layer):
            self._seen.add(id(value))
            tree.layers[path] = value
            for name, part in _parts_of(value):
                self.walk(part, f"{path}/{name}" if path else name, value, tree)
            for name, buffer in _torch_state_of(value):
                _put(tree, f"{path}/{name}", buffer, value)
        elif isinstance(value, keras.random.SeedGenerator):
            self._seen.add(id(value))
            self.walk(value.state, f"{path}/state", owner, tree)
        elif isinstance(value, Mapping):
            self._seen.add(id(value))
            for key, part in list(value.items()):
                self.walk(part, f"{path}/{key}", owner, tree)
        elif isinstance(value, list | tuple):
            self._seen.add(id(value))
            for index, part in enumerate(value):
                self.walk(part, f"{path}/{index}", owner, tree)


def _put(tree: Tree, path: str, variable: Cell, owner: keras.layers.Layer) -> None:
    unique, count = path, 1
    while unique in tree.variables:  # An attribute `kernel` beside `_kernel`.
        count += 1
        unique = f"{path}#{count}"
    tree.variables[unique] = variable
    tree.owners[unique] = owner


def _parts_of(layer: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of `layer` by name, in the same order for every copy."""
    if isinstance(layer, keras.Sequential) or hasattr(layer, "_nodes_by_depth"):
        counts: Counter[str] = Counter()
        for inner in layer.layers:
            # Not by the layer's name, which a class may leave out of its configuration.
            kind = type(inner).__name__
            yield f"{kind}_{counts[kind]}" if counts[kind] else kind, inner
            counts[kind] += 1
    attributes = values_in(layer)
    kept_last = (*LAST, *BUCKETS)
    of_torch = ("_modules", "_parameters", "_buffers", "_torch_params")
    for name in sorted(set(attributes) - {*kept_last, *of_torch}):
        if not name.startswith("_self_"):  # TensorFlow's bookkeeping.
            yield name.lstrip("_"), attributes[name]
    for name in kept_last:
        if name in attributes:
            yield name.lstrip("_"), attributes[name]


def values_in(part: Any) -> dict[str, Any]:
    """Return the values of the attributes of `part`, a layer or another object, by name."""
    found = dict(vars(part))
    # On PyTorch every layer is a module, which stores the layers in its attributes apart.
    return found | dict(found.get("_modules", {})) if keras.backend.backend() == "torch" else found


def _torch_state_of(layer: keras.layers.Layer) -> Iterator[tuple[str, Buffer]]:
    """Yield the buffers of the PyTorch module that `layer` wraps, by name."""
    if keras.backend.backend() != "torch" or not isinstance(layer, keras.layers.TorchModuleWrapper):
        return
    for name, module in layer.module.named_modules():
        for buffer, tensor in module.named_buffers(recurse=False):
            if tensor is not None:
                yield f"module/{name}.{buffer}".replace("/.", "/"), Buffer(module, buffer)


def value_of(variable: Cell) -> Array:
    """Return the value of `variable` as an array, which may share memory with it."""
    array: Array = np.asarray(keras.ops.convert_to_numpy(variable.value))
    return array


def compact(variable: Cell) -> Array:
    """Return a copy of the value, as one number if all elements are equal: optimizers begin with zeros."""
    value = np.array(value_of(variable))
    return np.asarray(value.ravel()[0]) if value.size and (value == value.ravel()[0]).all() else value


def digest_of_value(variable: Cell) -> int:
    """Return a checksum of the bits of `variable`."""
    array = np.ascontiguousarray(value_of(variable))
    return zlib.crc32(array.reshape(-1).view(np.uint8).data) if array.size else 0


def is_float(variable: Cell) -> bool:
    """Whether `variable` holds real numbers."""
    return bool(keras.backend.is_float_dtype(str(variable.dtype)))


def is_overwritten(variable: Cell) -> bool:
    """Whether the gradient of `variable` is its new value, not a direction: such are the scales of float8."""
    return bool(getattr(variable, "overwrite_with_gradient", False))
