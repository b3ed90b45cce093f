"""Class weights: the factor of a row's loss, by the class of its label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ClassWeight:
    """The weights of classes; classes without one have weight 1.

    Attributes:
        classes: class indices in ascending order.
        weights: weight of each class.
    """

    classes: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, given: Mapping[int, float]) -> ClassWeight:
        """Return a user's `class_weight`, validated.

        Raises:
            ValueError: it is empty, or does not map integers to finite, non-negative numbers.
        """
        fits = isinstance(given, Mapping) and all(
            isinstance(label, int | np.integer) and _is_weight(weight) for label, weight in given.items()
        )
        if not fits or not given:
            raise ValueError(
                "`class_weight` must map classes to numbers from 0, such as {0: 1.0, 1: 5.0}. "
                f"Received: class_weight={given!r}"
            )
        pairs = sorted((int(label), float(weight)) for label, weight in given.items())
        return cls(tuple(label for label, _ in pairs), tuple(weight for _, weight in pairs))

    def weigh(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the weight of each row, shape (rows,), as `keras.Model.fit` does.

        Args:
            labels: class indices, shape (rows,) or (rows, 1), or one-hot, shape (rows, classes).
        """
        if labels.ndim > 1:
            labels = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
        found = np.round(labels).astype(np.int64)
        known, weights = np.array(self.classes), np.array(self.weights, np.float32)
        place = np.searchsorted(known, found).clip(max=len(known) - 1)
        return np.where(known[place] == found, weights[place], np.float32(1))


def _is_weight(value: object) -> bool:
    return isinstance(value, int | float | np.number) and bool(math.isfinite(value) and value >= 0)
