"""Process-wide settings of Keras and its backend that affect a model's results."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

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
        jax: options of JAX by name; empty on other backends.
    """

    floatx: str
    epsilon: float
    image_data_format: str
    dtype_policy: Any
    jax: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def current(cls) -> ProcessSettings:
        """Return the settings of this process."""
        return cls(
            keras.config.floatx(),
            keras.config.epsilon(),
            keras.config.image_data_format(),
            keras.saving.serialize_keras_object(keras.config.dtype_policy()),
            _jax_options() if keras.backend.backend() == "jax" else (),
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
        if self.jax and self.jax != _jax_options():
            import jax

            for name, value in self.jax:
                jax.config.update(name, value)


def _jax_options() -> tuple[tuple[str, Any], ...]:
    import jax

    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl")
    return tuple((name, getattr(jax.config, name)) for name in names)
