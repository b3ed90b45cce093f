"""Process-wide settings of Keras and its backend that affect a model's results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
        _set_backend_options(self.backend)


@dataclass(frozen=True)
class _Option:
    value: Callable[[], Any]
    set: Callable[[Any], object]


def _backend_options() -> tuple[tuple[str, Any], ...]:
    return tuple((name, option.value()) for name, option in _options().items())


def _set_backend_options(options: tuple[tuple[str, Any], ...]) -> None:
    known = _options()
    for name, value in options:
        # The versions of a backend differ in what they have, and some options are slow to set.
        if name in known and known[name].value() != value:
            known[name].set(value)


def _options() -> dict[str, _Option]:
    """Return the options of the backend that change what a step computes, or which errors it raises."""
    match backend_name():
        case "jax":
            return _options_of_jax()
        case "torch":
            return _options_of_torch()
        case "tensorflow":
            return _options_of_tensorflow()
    return {}


def _options_of_jax() -> dict[str, _Option]:
    import jax

    names = (
        *("jax_enable_x64", "jax_default_matmul_precision", "jax_softmax_custom_jvp"),
        *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_random_seed_offset"),
        *("jax_high_dynamic_range_gumbel", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion"),
        *("jax_debug_nans", "jax_debug_infs"),
    )
    return {
        name: _Option(partial(getattr, jax.config, name), partial(jax.config.update, name))
        for name in names
        if hasattr(jax.config, name)
    }


def _options_of_torch() -> dict[str, _Option]:
    import torch

    cudnn = torch.backends.cudnn
    return {
        "float32_matmul_precision": _Option(
            torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        ),
        "default_dtype": _Option(torch.get_default_dtype, torch.set_default_dtype),
        "deterministic": _Option(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
        "detect_anomaly": _Option(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        **{
            f"cudnn.{name}": _Option(partial(getattr, cudnn, name), partial(setattr, cudnn, name))
            for name in ("deterministic", "benchmark", "allow_tf32")
        },
    }


def _options_of_tensorflow() -> dict[str, _Option]:
    import tensorflow as tf
    from tensorflow.python.framework import config

    def set_determinism(is_on: bool) -> None:
        (config.enable_op_determinism if is_on else config.disable_op_determinism)()

    return {
        "tensor_float_32": _Option(
            config.tensor_float_32_execution_enabled, config.enable_tensor_float_32_execution
        ),
        "functions_run_eagerly": _Option(tf.config.functions_run_eagerly, tf.config.run_functions_eagerly),
        "op_determinism": _Option(config.is_op_determinism_enabled, set_determinism),
        "jit": _Option(tf.config.optimizer.get_jit, lambda jit: tf.config.optimizer.set_jit(jit or False)),
    }
