"""Select the weights that a training shares, and place them in one flat vector."""

from __future__ import annotations

import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.center.layout import Layout
from distkeras.model.constraints import constrained
from distkeras.model.optimizer import averages_of
from distkeras.model.variables import Array, Buffer, Cell, Tree, is_float, is_overwritten, tree_of, value_of

AVERAGE = "average of "
"""Prefix of the path of a moving average that the optimizer keeps of a weight."""


ALIGNMENT = 64


class ModelChanged(ValueError):
    """A copy of a model differs from the given model."""


def layout_of(model: keras.Model) -> Layout:
    """Return the place of each weight of a built `model` in the flat vector.

    Trainable weights come first, then the statistics: float weights created as not trainable, buffers of
    PyTorch modules, trainable weights that the optimizer overwrites instead of moving them, and moving
    averages of the optimizer. Frozen weights have no place, nor have the statistics of a frozen batch
    normalization, which Keras does not change.
    """
    tree = tree_of(model)
    paths = tree.paths()
    trainable: list[tuple[str, Cell]] = []
    overwritten: list[tuple[str, Cell]] = []
    for variable in model.trainable_variables:
        (overwritten if is_overwritten(variable) else trainable).append((paths[id(variable)], variable))
    moving = [(path, cell) for path, cell in tree.variables.items() if _is_statistic(path, cell, tree)]
    moving += overwritten
    moving += [(AVERAGE + paths[id(weight)], cell) for weight, cell in _averages_of(model)]
    wide = any(value_of(cell).dtype == np.float64 for _, cell in (*trainable, *moving))
    return Layout(
        tuple((path, tuple(cell.shape)) for path, cell in trainable),
        tuple((path, tuple(cell.shape)) for path, cell in moving),
        "float64" if wide else "float32",
    )


def cells_of(model: keras.Model, layout: Layout) -> list[Cell]:
    """Return the variable or buffer of `model` for each weight of `layout`, in the layout's order.

    Raises:
        ModelChanged: a weight of the layout is missing, or has another shape.
    """
    tree = tree_of(model)
    cells = dict(tree.variables)
    paths = tree.paths()
    for weight, average in _averages_of(model):
        cells[AVERAGE + paths[id(weight)]] = average
    for segment in layout.segments():
        if segment.path not in cells or tuple(cells[segment.path].shape) != segment.shape:
            found = tuple(cells[segment.path].shape) if segment.path in cells else "no such weight"
            raise ModelChanged(
                f"Expected the weight {segment.path!r} of shape {segment.shape} in {model.name!r}. "
                f"Received: {found}"
            )
    return [cells[segment.path] for segment in layout.segments()]


def initial_vector(model: keras.Model, layout: Layout | None = None) -> Vector:
    """Return the weights of `model` as one new vector, shape (size,), in `layout` or in its own."""
    layout = layout_of(model) if layout is None else layout
    return layout.pack([value_of(cell) for cell in cells_of(model, layout)])


def set_vector(model: keras.Model, vector: Vector, layout: Layout | None = None) -> None:
    """Set the weights of `model` from `vector`, shape (size,), in `layout` or in its own.

    The constraints of the weights hold afterwards.

    Raises:
        ValueError: `vector` has another size than the layout.
    """
    layout = layout_of(model) if layout is None else layout
    cells = cells_of(model, layout)
    values = layout.unpack(constrained(np.asarray(vector), layout, cells))
    for cell, value in zip(cells, values, strict=True):
        cell.assign(_aligned_copy(value))


def _aligned_copy(value: Array) -> Array:
    """Return a copy of `value` for a variable: JAX and TensorFlow may keep the memory of an array.

    JAX keeps memory that begins at a multiple of 64 bytes, and copies other memory once more. To set the
    weights of a model of 400 MB took another 70 % of its size without alignment, and takes 10 % with it.
    """
    memory = np.empty(value.nbytes + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    copy = memory[first : first + value.nbytes].view(value.dtype).reshape(value.shape)
    copy[...] = value
    return copy


def _averages_of(model: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    return averages_of(getattr(model, "optimizer", None))


def _is_statistic(path: str, cell: Cell, tree: Tree) -> bool:
    """Whether training changes `cell` without a gradient."""
    if not is_float(cell):
        return False
    owner = tree.owners[path]
    if isinstance(cell, Buffer):
        return cell.is_persistent
    if isinstance(owner, keras.layers.BatchNormalization) and not owner.trainable:
        return False
    return any(cell is variable for variable in owner._non_trainable_variables)
