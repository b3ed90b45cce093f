"""Keras's serialization without the import of TensorFlow."""

from __future__ import annotations

import sys
from typing import Any

from keras.src.saving import serialization_lib
from keras.src.utils import module_utils


class _IfImported:
    """Stands for TensorFlow where Keras asks whether an object is of one of TensorFlow's classes.

    Until something imports TensorFlow, no object is. Keras would import it for the answer, which takes
    seconds in a process of another backend.
    """

    @property
    def available(self) -> bool:
        return "tensorflow" in sys.modules and bool(module_utils.tensorflow.available)

    def __getattr__(self, name: str) -> Any:
        return getattr(module_utils.tensorflow, name)


def serialize_without_tensorflow() -> None:
    """Let Keras serialize the objects of this process without importing TensorFlow.

    This lasts. What Keras writes is the same.
    """
    if not isinstance(serialization_lib.tf, _IfImported):
        serialization_lib.tf = _IfImported()
