"""The constraints of a model's weights, which the center of several workers need not fulfil.

A Keras optimizer applies `kernel_constraint` after each step. A rule then adds up what workers have moved:
two workers that each move a weight from 0.5 to 0 bring the center to -0.5, also with `NonNeg`. Therefore
every model that takes a center's weights applies its constraints to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from distkeras.algorithms import Vector
from distkeras.center.layout import Layout
from distkeras.model.variables import Array, Cell

UNITS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distances from 1 to the next number, where they are larger than Keras's epsilon."""

ROUNDING = 16
"""Such units, or epsilons, by which a constraint may change what fulfils it: norms add an epsilon."""


def constrained(vector: Vector, layout: Layout, cells: Sequence[Cell]) -> Vector:
    """Return `vector`, or a copy of it with the constraints of `cells` applied where they are not fulfilled.

    Args:
        vector: weights in `layout`, shape (size,).
        layout: the place of each weight.
        cells: the variable of each weight, in the layout's order.
    """
    if all(getattr(cell, "constraint", None) is None for cell in cells):
        return vector
    changed = vector
    for segment, cell in zip(layout.segments(), cells, strict=True):
        constraint = getattr(cell, "constraint", None)
        if constraint is None:
            continue
        value = vector[segment.elements].reshape(segment.shape)
        fulfilling = _applied(constraint, value, str(cell.dtype))
        if fulfilling is None:
            continue
        if changed is vector:
            changed = vector.copy()
        changed[segment.elements] = fulfilling.ravel()
    return changed


def _applied(constraint: Any, value: Array, dtype: str) -> Array | None:
    """Return `value` under `constraint`; `None` if it fulfils it, or if the constraint changes what does."""
    given = ops.cast(ops.convert_to_tensor(value), dtype)
    once = constraint(given)
    before, after, again = (
        np.asarray(ops.convert_to_numpy(each), np.float64) for each in (given, once, constraint(once))
    )
    unit = UNITS.get(dtype, keras.config.epsilon())
    tolerance = ROUNDING * unit * np.abs(before) + 8 * np.abs(again - after)
    return None if bool((np.abs(after - before) <= tolerance).all()) else after
