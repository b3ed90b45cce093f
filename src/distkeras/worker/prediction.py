"""What a Python worker is told that predicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkeras.worker.output_columns import OutputColumn
from distkeras.worker.padding import Padding
from distkeras.worker.payload import Openable
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec


@dataclass(frozen=True)
class Prediction:
    """What a Python worker is told.

    Attributes:
        models: a tuple of `SavedModel`, of the same inputs and outputs; several give the mean of their
            outputs.
        backend: of Keras.
        threads: cores that the worker may use.
        inputs: of the models.
        columns: the user's name of each column, for errors; no name stands twice. There is one for each input
            that is no mask, or those that `preprocess` is given.
        output_columns: how each output becomes a column.
        batch_size: rows that a model takes at once.
        preprocess: code of the user's that makes the inputs of the columns.
        paddings: how the rows of each column are filled up; empty: none of them.
    """

    models: Openable
    backend: str
    threads: int
    inputs: tuple[TensorSpec, ...]
    columns: tuple[str, ...]
    output_columns: tuple[OutputColumn, ...]
    batch_size: int
    preprocess: Preprocess | None = None
    paddings: tuple[Padding | None, ...] = ()

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        """The inputs that a column feeds."""
        masks = {padding.mask for padding in self.paddings if padding is not None}
        return tuple(spec for spec in self.inputs if (spec.key or spec.name) not in masks)

    @property
    def open(self) -> tuple[TensorSpec, ...]:
        """The inputs of the columns; of those whose rows come in one length, the shape does not count."""
        if self.preprocess is not None:
            return tuple(TensorSpec(name, ()) for name in self.columns)
        paddings = self.paddings or (None,) * len(self.columns)
        pairs = zip(self.fed, paddings, strict=True)
        return tuple(spec if padding is None else replace(spec, shape=()) for spec, padding in pairs)
