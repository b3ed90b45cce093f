"""A Keras model whose steps take a while, for the scripts that others run."""

from __future__ import annotations

import keras


def slow_class(pause):
    """Return a class of models whose steps take at least `pause` seconds on JAX."""

    class Slow(keras.Model):
        def train_step(self, *arguments):
            import jax

            def wait():
                import time

                time.sleep(pause)

            jax.debug.callback(wait)
            return super().train_step(*arguments)

    return Slow
