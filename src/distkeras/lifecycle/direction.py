"""Whether a larger or a smaller value of a metric is better, by its name, as in Keras's callbacks."""

from __future__ import annotations

from typing import Literal

Mode = Literal["min", "max"]

_MAX = ("acc", "auc", "precision", "recall", "f1", "fbeta", "iou", "r2", "cosine_similarity")
"""Parts of the names of metrics of which larger values are better."""


def mode_of(name: str) -> Mode:
    """Return "max" if larger values of the metric `name` are better, else "min"."""
    own = name.removeprefix("val_").lower()
    return "max" if any(part in own for part in _MAX) else "min"


def is_better(value: float, other: float, mode: str) -> bool:
    """Return whether `value` is better than `other`; NaN is not."""
    return value > other if mode == "max" else value < other
