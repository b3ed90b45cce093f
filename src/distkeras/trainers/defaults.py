"""Defaults of Keras's optimizers that have changed since dist-keras was written."""

from __future__ import annotations

from typing import Any

__all__ = ["ChangedDefaultWarning", "changed_default"]

CHANGED = {
    "adagrad": (
        "a learning rate of 0.01 and accumulators that start at 0",
        "0.001 and 0.1",
        "keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.0)",
    ),
    "adadelta": ("a learning rate of 1.0", "0.001", "keras.optimizers.Adadelta(1.0)"),
}
"""By name of the optimizer: the default in Keras 1 and 2.0, the default in Keras 3, and code for the old one.

Adamax and Nadam are not listed: their rate changed from 0.002 to 0.001, which trains about as well.
"""


class ChangedDefaultWarning(UserWarning):
    """An optimizer is given by name only, and its defaults now learn much more slowly than in Keras 1."""


def changed_default(worker_optimizer: Any) -> str | None:
    """Return a warning if `worker_optimizer` is a name whose defaults have changed much, else None."""
    if not isinstance(worker_optimizer, str) or worker_optimizer.lower() not in CHANGED:
        return None
    old, new, way = CHANGED[worker_optimizer.lower()]
    return (
        f"{worker_optimizer!r} had {old} in Keras 1, which dist-keras used. Keras 3 has {new} "
        f"and learns much more slowly. For the old defaults, pass `worker_optimizer={way}`; for the new "
        "ones, pass an optimizer object without arguments."
    )
