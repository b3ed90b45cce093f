"""What layers and weights have on PyTorch and Keras does not know: modules, hooks, strides, `requires_grad`.

There every layer of Keras is a `torch.nn.Module`, and every weight a tensor. Users set on them what PyTorch
offers. On another backend there is nothing to find.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import cloudpickle
import keras

from distkeras.model.kinds import package_of

HOOKS_OF_MODULES = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    *("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"),
    *("_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)
HOOKS_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")

Hooks = dict[str, Any]
"""PyTorch's attributes that hold hooks, by name, where there are any."""


@dataclass(frozen=True)
class TensorState:
    """What a tensor is besides its elements.

    Attributes:
        strides: in elements; `None` for a tensor that has only one layout, or no usual one. PyTorch rounds by
            them: `model.to(memory_format=torch.channels_last)` sets them, and some initializers do.
        requires_grad: whether PyTorch computes its gradient.
    """

    strides: tuple[int, ...] | None
    requires_grad: bool


def tensor_state_of(tensor: Any) -> TensorState | None:
    """Return the state of a weight's tensor; `None` on another backend, and for tensors without strides."""
    if keras.backend.backend() != "torch":
        return None
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        return None
    strides = tuple(tensor.stride())
    return TensorState(strides if _is_dense(tensor.shape, strides) else None, tensor.requires_grad)


def set_tensor_state(tensor: Any, state: TensorState) -> None:
    """Give the tensor of a weight `state`. Its elements stay, and may move in memory."""
    import torch

    strides = state.strides
    if strides is not None and len(strides) == tensor.dim() and tensor.stride() != strides:
        moved = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
        tensor.data = moved.copy_(tensor.detach())
    if tensor.requires_grad != state.requires_grad:
        tensor.requires_grad_(state.requires_grad)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a tensor has several layouts, and in this one its elements lie side by side, each once."""
    if len(shape) < 2 or 0 in shape:
        return False
    expected = 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length > 1 and stride != expected:
            return False
        expected *= length
    return True


def hooks_of(part: Any) -> Hooks:
    """Return the hooks of a layer, or of the tensor of a weight."""
    if keras.backend.backend() != "torch":
        return {}
    found = {name: getattr(part, name, None) for name in _names_for(part)}
    return {name: value for name, value in found.items() if value} if any(_dicts(found)) else {}


def set_hooks(part: Any, hooks: Hooks) -> None:
    """Let a layer, or the tensor of a weight, have these hooks and no others."""
    if not hooks and not hooks_of(part):
        return
    from torch.utils.hooks import RemovableHandle

    for name in _names_for(part):
        if name == "_is_full_backward_hook":
            vars(part)[name] = hooks.get(name)
        elif isinstance(part, keras.layers.Layer):
            vars(part)[name] = OrderedDict(hooks.get(name, {}))  # Not by Keras, which would track a dict.
        else:
            setattr(part, name, OrderedDict(hooks[name]) if name in hooks else None)
    # Hooks that are registered later get numbers of their own.
    numbers = [number for each in _dicts(hooks) for number in each]
    RemovableHandle.next_id = max([RemovableHandle.next_id, *(number + 1 for number in numbers)])


def _names_for(part: Any) -> tuple[str, ...]:
    return HOOKS_OF_MODULES if isinstance(part, keras.layers.Layer) else HOOKS_OF_TENSORS


def _dicts(hooks: Hooks) -> list[dict[int, Any]]:
    return [value for value in hooks.values() if isinstance(value, dict)]


def is_wrapped_module(part: Any) -> bool:
    """Whether `part` is a layer of Keras around a module of PyTorch."""
    return keras.backend.backend() == "torch" and isinstance(part, keras.layers.TorchModuleWrapper)


def parameters_of(layer: Any) -> list[str | None]:
    """Return the name of the parameter that each variable of a wrapped module is; `None`: it is none."""
    names = {id(parameter): name for name, parameter in layer.module.named_parameters()}
    return [names.get(id(variable._value)) for variable in layer.variables]


def share_parameters(layer: Any, names: Sequence[str | None]) -> None:
    """Let the variables of a layer be the parameters of its module, not copies that no call of it sees.

    Args:
        layer: any layer, which is a module itself, or has another around which it was made.
        names: of `parameters_of`, if it is around a module.
    """
    vars(layer).get("_modules", {}).pop("_torch_params", None)
    if is_wrapped_module(layer):
        parameters = dict(layer.module.named_parameters())
        for variable, name in zip(layer.variables, names, strict=True):
            if name is not None:
                variable._value = parameters[name]
    layer._track_variables()


def set_module(layer: Any, module: Any) -> None:
    """Put a copy of its module in the place of that of a layer."""
    names = parameters_of(layer)
    layer.module = module
    share_parameters(layer, names)


def classes_of_modules(layers: Iterable[Any]) -> dict[str, type]:
    """Return the user's own classes of modules inside the layers, by name: a worker needs their packages."""
    modules = (module for layer in layers if is_wrapped_module(layer) for module in layer.module.modules())
    classes = {type(module) for module in modules}
    return {f"{each.__module__}.{each.__qualname__}": each for each in classes if package_of(each) != "torch"}


def check_is_saved_by_name(layer: Any) -> None:
    """Check that another process can open the module of a layer from the file that PyTorch would write.

    Raises:
        ValueError: a class or function in it is one of a script or notebook, which no other process imports.
    """
    with open(os.devnull, "wb") as nowhere:
        pickler = _Names(nowhere)
        pickler.dump(layer.module)
    if pickler.own:
        raise ValueError(f"PyTorch saves by their names: {', '.join(sorted(pickler.own))}")


class _Names(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Notes the classes and functions that it does not pickle by name."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.own: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            return int, ()  # Its elements do not matter.
        reduced = super().reducer_override(value)
        is_named = isinstance(value, type | FunctionType) and value.__module__ != "builtins"
        if is_named and reduced is not NotImplemented:
            self.own.add(value.__qualname__)
        return reduced
