"""The data of `fit`, `evaluate` and `predict`: from the forms that Keras takes to those of a trainer."""

from __future__ import annotations

import contextlib
import math
import tempfile
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters import (
    get_data_adapter,
    is_grain_dataset,
    is_tf_dataset,
    is_torch_dataloader,
)
from keras.src.trainers.data_adapters.array_data_adapter import can_convert_arrays
from keras.src.trainers.data_adapters.array_slicing import convert_to_sliceable
from keras.src.trainers.data_adapters.data_adapter_utils import is_tensorflow_ragged

from distkeras.cluster.written import Batch, Written, write_batches


@dataclass(frozen=True)
class Data:
    """Data for a training, an evaluation or a prediction.

    Attributes:
        rows: what `DistributedTrainer.train` takes, or `Written`.
        num_rows: number of rows, if known.
        batch_size: rows of a minibatch, for a dataset that has minibatches of its own.
        first: `(x, y, sample_weight)` of the first rows, NumPy arrays, from which Keras can build a model;
            `None` for DataFrames and tables.
        in_order: the dataset has an order of its own, in which Keras would train, whatever `shuffle` says.
    """

    rows: Any
    num_rows: int | None = None
    batch_size: int | None = None
    first: Batch | None = None
    in_order: bool = False

    def num_batches(self, batch_size: int) -> int | None:
        """Number of minibatches of `batch_size` rows, if known."""
        return None if self.num_rows is None else math.ceil(self.num_rows / batch_size)


def is_dataset(x: Any) -> bool:
    """Whether `x` is a dataset that Keras takes minibatch by minibatch: it has labels and weights in it."""
    if isinstance(x, keras.utils.PyDataset | types.GeneratorType):
        return True
    return bool(is_tf_dataset(x) or is_torch_dataloader(x) or is_grain_dataset(x))


def whole_executions(model: Any, steps: int | None) -> int | None:
    """Return a number of minibatches that executions of `steps_per_execution` fill, as Keras takes them."""
    together = getattr(model, "steps_per_execution", 1)
    return None if steps is None else -(-steps // together) * together


def is_endless(x: Any) -> bool:
    """Whether a dataset says of itself that it has no end."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches is None
    return bool(is_tf_dataset(x)) and int(x.cardinality()) == -1


def data_of(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    folder: Path,
    steps: int | None = None,
    steps_argument: str = "steps_per_epoch",
    one_file: bool = False,
) -> Data:
    """Return the data in the form that a trainer takes.

    Args:
        x: what `keras.Model.fit` or `DistributedTrainer.train` takes. Datasets are written out to `folder`.
        y: labels, with arrays.
        sample_weight: weights, with arrays.
        folder: an empty folder of this machine, which lives as long as the data.
        steps: number of minibatches to take of a dataset at most; `None` for all.
        steps_argument: name of the user's argument that says `steps`.
        one_file: for one worker: the order of the rows is kept.

    Raises:
        ValueError, TypeError: labels or weights are given twice or not at all, `x` has another type, or a
            dataset has no end, and `steps` is not given.
    """
    if is_dataset(x):
        _refuse_apart(x, y, sample_weight, "as part of the dataset")
        return _written(x, folder, steps, steps_argument, one_file)
    # A table of named columns has its labels in it, unless `y` is given: then it is an array.
    tabular = _is_table(x) and y is None and sample_weight is None
    if not tabular and can_convert_arrays((x, y, sample_weight)):
        return _arrays(x, y, sample_weight)
    _refuse_apart(x, y, sample_weight, "by `label_col` and `sample_weight_col`, as columns of the table")
    return Data(tuple(x) if isinstance(x, list) else x)


def _refuse_apart(x: Any, y: Any, sample_weight: Any, where: str) -> None:
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"Expected `{name}` only with arrays: give it {where}. Received: x of type {type(x)}, "
                f"{name} of type {type(value)}"
            )


def _is_table(x: Any) -> bool:
    exports = ("__dataframe__", "__arrow_c_stream__", "__arrow_c_array__")
    return hasattr(x, "columns") and any(hasattr(x, name) for name in exports)


def _arrays(x: Any, y: Any, sample_weight: Any) -> Data:
    parts = tuple(_numpy(part) for part in (x, y, sample_weight))
    sizes = {array.shape[0] for array in keras.tree.flatten(parts) if array is not None}
    if len(sizes) != 1:
        raise ValueError(
            f"Expected arrays with equal numbers of rows. Received: arrays of {sorted(sizes)} rows"
        )
    # A tuple as `x` is a list of inputs; a trainer's tuple is (x, y, sample_weight).
    inputs = list(parts[0]) if isinstance(parts[0], tuple) else parts[0]
    labels = list(parts[1]) if isinstance(parts[1], tuple) else parts[1]
    return Data((inputs, labels, parts[2]), num_rows=sizes.pop(), first=_first(parts, 2))


def _numpy(part: Any) -> Any:
    """Return a structure of dense NumPy arrays, with floats in Keras's `floatx`, as `fit` feeds them."""
    for array in keras.tree.flatten(part):
        if is_tensorflow_ragged(array):
            raise TypeError(
                "Expected dense or sparse arrays. For rows of different lengths, give a column of lists, and "
                "`pad_to`. Received: a tf.RaggedTensor"
            )
    sliceables = convert_to_sliceable(part, target_backend="numpy")
    return keras.tree.map_structure(
        lambda sliceable: _whole(sliceable) if sliceable is not None else None, sliceables
    )


def _whole(sliceable: Any) -> np.ndarray[Any, Any]:
    shape = sliceable.shape if hasattr(sliceable, "shape") else sliceable.array.shape
    rows = sliceable[0 : shape[0]]
    return np.asarray(sliceable.convert_to_numpy(rows))


def _first(parts: Any, rows: int) -> Batch:
    first: Batch = keras.tree.map_structure(lambda array: None if array is None else array[:rows], parts)
    return first


def _written(x: Any, folder: Path, steps: int | None, argument: str, one_file: bool) -> Data:
    if steps is None and is_endless(x):
        raise ValueError(
            f"Expected `{argument}` with an endless dataset: it is written to files before the training. "
            f"Received: {argument}=None, x of type {type(x)}"
        )
    adapter = get_data_adapter(x)
    adapter.on_epoch_begin()
    try:
        written = write_batches(_batches(adapter), folder, most=steps, one_file=one_file)
    finally:
        adapter.on_epoch_end()
    return Data(
        written,
        num_rows=written.num_rows,
        batch_size=written.batch_size,
        first=written.first,
        in_order=not isinstance(x, keras.utils.PyDataset) or is_endless(x),
    )


def _batches(adapter: Any) -> Iterator[Batch]:
    for batch in adapter.get_numpy_iterator():
        yield tuple(_numpy(part) for part in keras.utils.unpack_x_y_sample_weight(batch))


def validation_of(given: Any, *, folder: Path, batch_size: int, steps: int | None) -> Data:
    """Return validation data: as `data_of`, or a tuple or list `(x, y)` or `(x, y, sample_weight)`.

    Args:
        given: the argument `validation_data`.
        folder: as in `data_of`.
        batch_size: rows of a minibatch of the validation.
        steps: number of minibatches to judge; `None` for all.
    """
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "Expected `validation_data` as (x, y), (x, y, sample_weight), or one object with the labels in "
            f"it. Received: {len(parts)} parts"
        )
    data = data_of(*parts, folder=folder, steps=steps, steps_argument="validation_steps", one_file=True)
    return limited(data, steps, batch_size, "validation_steps")


def limited(data: Data, steps: int | None, batch_size: int, argument: str) -> Data:
    """Return the first `steps` minibatches of `data`; all if it is `None`.

    Args:
        data: the data; a dataset is limited already.
        steps: number of minibatches.
        batch_size: their rows.
        argument: name of the user's argument that says `steps`.

    Raises:
        ValueError: the data has no order.
    """
    if steps is None or isinstance(data.rows, Written):
        return data
    if data.num_rows is None:
        raise ValueError(
            f"Expected `{argument}` only with arrays or datasets, whose rows have an order: give a DataFrame "
            f"of the rows, such as df.limit({steps * batch_size}). Received: {argument}={steps}"
        )
    return _arrays(*_first(data.rows, steps * batch_size))


@contextlib.contextmanager
def folders(count: int) -> Iterator[list[Path]]:
    """Yield empty folders of this machine, which are deleted after the block."""
    with tempfile.TemporaryDirectory(prefix="distkeras-data-") as name:
        made = [Path(name, str(index)) for index in range(count)]
        for folder in made:
            folder.mkdir()
        yield made


def build(model: Any, first: Batch | None, *, labelled: bool = True) -> None:
    """Build a model that is not built from the first rows, as `keras.Model.fit` does.

    Args:
        model: the model.
        first: its first rows.
        labelled: whether they have the labels that its loss needs; for a prediction they need none.
    """
    if first is None or (model.built and all(layer.built for layer in model._flatten_layers())):
        return
    if isinstance(model, keras.Sequential) and not model.built and hasattr(first[0], "shape"):
        # PyTorch has no open batch size: what is built below would fix the one that Keras makes up.
        model.build((None, *first[0].shape[1:]))
    if model.compiled and labelled:
        model._symbolic_build(data_batch=keras.tree.map_structure(symbolic, first))
    else:
        model(keras.tree.map_structure(symbolic, first[0]))


def symbolic(array: Any) -> keras.KerasTensor | None:
    """Return a tensor without values like `array`, for minibatches of any size; `None` for `None`."""
    if array is None:
        return None
    return keras.KerasTensor((None, *array.shape[1:]), str(array.dtype))
