"""Defaults of Keras's optimizers that are others than they were when dist-keras was written."""

from __future__ import annotations

from typing import Any

__all__ = ["ChangedDefaultWarning", "changed_default"]

CHANGED = {
    "adagrad": (
        "a learning rate of 0.01 and accumulators that begin at 0",
        "0.001 and 0.1",
        "keras.optimizers.Adagrad(0.01, initial_accumulator_value=0.0)",
    ),
    "adadelta": ("a learning rate of 1.0", "0.001", "keras.optimizers.Adadelta(1.0)"),
}
"""By name: what Keras 1 and 2.0 had, what Keras 3 has, and how to get the old one.

Adamax and Nadam are not here: their rate was 0.002 and is 0.001, which trains about as well.
"""


class ChangedDefaultWarning(UserWarning):
    """An optimizer is given by its name alone, and learns much more slowly by default than it once did."""


def changed_default(worker_optimizer: Any) -> str | None:
    """Return a warning where `worker_optimizer` is a name whose defaults have changed much, else None."""
    if not isinstance(worker_optimizer, str) or worker_optimizer.lower() not in CHANGED:
        return None
    old, new, way = CHANGED[worker_optimizer.lower()]
    return (
        f"{worker_optimizer!r} had {old} in Keras 1, with which dist-keras ran. Keras 3 has {new} "
        f"and learns much more slowly. For the old default give `worker_optimizer={way}`; for the new "
        "one, an object without arguments."
    )
