"""The settings of a prediction in a Python worker."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkeras.worker.output_columns import OutputColumn
from distkeras.worker.padding import Padding
from distkeras.worker.payload import Openable
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec


@dataclass(frozen=True)
class Prediction:
    """The settings of a prediction.

    Attributes:
        models: a tuple of `SavedModel`, of the same inputs and outputs; the outputs of several models are
            averaged.
        backend: the Keras backend.
        threads: cores that the worker may use.
        inputs: inputs of the models.
        columns: the user's name of each column, for errors, without duplicates. There is one for each input
            that is not a mask, or those that `preprocess` receives.
        output_columns: how each output becomes a column.
        batch_size: rows that a model takes at once.
        preprocess: the user's function that makes the inputs from the columns.
        paddings: how the rows of each column are padded; empty for no padding.
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
        """The inputs that columns feed."""
        masks = {padding.mask for padding in self.paddings if padding is not None}
        return tuple(spec for spec in self.inputs if (spec.key or spec.name) not in masks)

    @property
    def open(self) -> tuple[TensorSpec, ...]:
        """The inputs of the columns; the shape is () for columns whose rows get one length by other means."""
        if self.preprocess is not None:
            return tuple(TensorSpec(name, ()) for name in self.columns)
        paddings = self.paddings or (None,) * len(self.columns)
        pairs = zip(self.fed, paddings, strict=True)
        return tuple(spec if padding is None else replace(spec, shape=()) for spec, padding in pairs)
