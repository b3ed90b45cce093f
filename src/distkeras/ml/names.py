"""A check of optimizer names, before training starts."""

from __future__ import annotations

import difflib

import keras

WRAPPERS = ("LossScaleOptimizer", "MultiOptimizer", "Optimizer", "OptimizerMap")
"""Optimizer classes that cannot be created from a name only."""


def check_optimizer_name(name: str) -> None:
    """Raise ValueError unless Keras has an optimizer of this name, its own or a registered one."""
    try:
        keras.optimizers.get(name)
    except ValueError as error:
        known = sorted(
            found.lower()
            for found, value in vars(keras.optimizers).items()
            if isinstance(value, type) and found not in WRAPPERS
        )
        close = difflib.get_close_matches(name.lower(), known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Known: {', '.join(known)}."
        raise ValueError(
            f"Keras has no optimizer of this name.{hint} Expected a known name, or a Keras optimizer. "
            f"Received: workerOptimizer={name!r}"
        ) from error
