"""Process-wide settings of Keras and its backend that affect a model's results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from keras.src.backend.common import global_state

ONE_AT_A_TIME = threading.RLock()
"""Lock for temporary changes to global state of Keras or Python or to a user's function: threads of one
driver may start and end several trainings at once."""


def backend_name() -> str:
    """Return the name of Keras's backend in this process."""
    return str(keras.backend.backend())


@dataclass(frozen=True)
class ProcessSettings:
    """Settings that a worker must apply before it creates the model.

    Attributes:
        floatx: Keras's default float type.
        epsilon: Keras's fuzz factor.
        image_data_format: whether channels come first or last by default.
        dtype_policy: Keras's default policy, as a configuration.
        flash_attention: whether attention uses it; `None` for where it can.
        backend: options of the backend by name.
    """

    floatx: str
    epsilon: float
    image_data_format: str
    dtype_policy: Any
    flash_attention: bool | None
    backend: tuple[tuple[str, Any], ...]

    @classmethod
    def current(cls) -> ProcessSettings:
        """Return the settings of this process."""
        return cls(
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            keras.saving.serialize_keras_object(keras.config.dtype_policy()),
            keras.config.is_flash_attention_enabled(),
            _backend_options(),
        )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Apply the settings inside the block: the driver's user may have chosen others since."""
        with ONE_AT_A_TIME:
            before = ProcessSettings.current()
            if before == self:
                yield
                return
            self.apply()
            try:
                yield
            finally:
                before.apply()

    def apply(self) -> None:
        """Apply the settings to this process."""
        keras.config.set_floatx(self.floatx)
        keras.config.set_epsilon(self.epsilon)
        keras.config.set_image_data_format(self.image_data_format)
        keras.config.set_dtype_policy(keras.saving.deserialize_keras_object(self.dtype_policy))
        # Keras's own functions cannot set it back to None.
        global_state.set_global_attribute("flash_attention", self.flash_attention)
        if self.backend != _backend_options():
            _set_backend_options(self.backend)


def _backend_options() -> tuple[tuple[str, Any], ...]:
    """Return the options of the backend that change what a step computes."""
    match backend_name():
        case "jax":
            import jax

            names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
            return tuple((name, getattr(jax.config, name)) for name in names)
        case "torch":
            import torch

            return (("float32_matmul_precision", torch.get_float32_matmul_precision()),)
        case "tensorflow":
            import tensorflow as tf

            return (("tensor_float_32", tf.config.experimental.tensor_float_32_execution_enabled()),)
    return ()


def _set_backend_options(options: tuple[tuple[str, Any], ...]) -> None:
    for name, value in options:
        match backend_name():
            case "jax":
                import jax

                jax.config.update(name, value)
            case "torch":
                import torch

                torch.set_float32_matmul_precision(value)
            case _:
                import tensorflow as tf

                tf.config.experimental.enable_tensor_float_32_execution(value)
