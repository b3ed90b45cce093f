"""Minibatches in the form that the compiler of the backend takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def compilable(model: keras.Model, tensors: Any) -> Any:
    """Return `tensors` as the compiled step of `model` takes them.

    PyTorch's compiler refuses views of memory that cannot be written to, such as rows that Spark has sent.
    They are copied for it.

    Args:
        model: the model.
        tensors: arrays, or a structure of them.
    """
    import keras

    if keras.backend.backend() != "torch" or not model.jit_compile:
        return tensors
    return keras.tree.map_structure(_own, tensors)


def _own(tensor: Any) -> Any:
    is_view = isinstance(tensor, np.ndarray) and not tensor.flags.writeable
    return np.array(tensor) if is_view else tensor
