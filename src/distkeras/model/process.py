"""Settings of Keras and its backend that belong to a process, and decide what a model computes there."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

ONE_AT_A_TIME = threading.RLock()
"""Held by whoever changes for a while what Keras, Python or a function of the user's has once in a process:
several trainings may begin and end at once, in threads of one driver."""


@dataclass(frozen=True)
class ProcessSettings:
    """What a worker must set before it makes the model.

    Attributes:
        floatx: Keras's default type of numbers.
        epsilon: Keras's small number.
        image_data_format: whether channels come first or last by default.
        dtype_policy: Keras's default policy, as a configuration.
        jax: options of JAX by name, on JAX.
    """

    floatx: str
    epsilon: float
    image_data_format: str
    dtype_policy: Any
    jax: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def current(cls) -> ProcessSettings:
        """Return those of this process."""
        return cls(
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            keras.saving.serialize_keras_object(keras.config.dtype_policy()),
            _jax_options() if keras.backend.backend() == "jax" else (),
        )

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Bring this process to them for a while, as a driver whose user has chosen others since."""
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
        """Bring this process to them."""
        keras.config.set_floatx(self.floatx)
        keras.config.set_epsilon(self.epsilon)
        keras.config.set_image_data_format(self.image_data_format)
        keras.config.set_dtype_policy(keras.saving.deserialize_keras_object(self.dtype_policy))
        if self.jax and self.jax != _jax_options():
            import jax

            for name, value in self.jax:
                jax.config.update(name, value)


def _jax_options() -> tuple[tuple[str, Any], ...]:
    import jax

    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
    return tuple((name, getattr(jax.config, name)) for name in names)
