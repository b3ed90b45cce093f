"""The functions of dist-keras's `utils`, under their old names. Nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.description import described
from distkeras.removed_names import missing

if TYPE_CHECKING:
    import keras

    from distkeras.events import Window
    from distkeras.trainers.history import Averaged, History


__all__ = [
    "deserialize_keras_model",
    "history_executor",
    "history_executors_average",
    "json_to_dataframe_row",
    "new_dataframe_row",
    "precache",
    "serialize_keras_model",
    "shuffle",
    "to_one_hot_encoded_dense",
    "uniform_weights",
]


def shuffle(dataset: DataFrame, seed: int | None = None) -> DataFrame:
    """Return the rows in random order, cached, so that every later pass sees the same order.

    Args:
        dataset: the rows.
        seed: seed of the order; the same seed gives the same order for the same partitions.
    """
    return dataset.orderBy(F.rand(seed)).cache()


def precache(dataset: DataFrame, num_workers: int) -> DataFrame:
    """Return the rows in `num_workers` partitions, computed and cached now.

    Args:
        dataset: the rows.
        num_workers: number of partitions, one per worker.

    Raises:
        ValueError: `num_workers` is not a positive integer.
    """
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 1:
        raise ValueError(f"`num_workers` must be a positive integer. Received: num_workers={num_workers!r}")
    cached = dataset.repartition(num_workers).cache()
    with described(dataset.sparkSession, "computes and caches rows"):
        cached.count()
    return cached


def new_dataframe_row(old_row: Row, column_name: str, column_value: Any) -> Row:
    """Return a row with one more field at the end; it replaces an existing field of this name.

    Raises:
        TypeError: `old_row` has no field names.
    """
    if not hasattr(old_row, "__fields__"):
        raise TypeError(f"Expected a Row with named fields. Received: old_row={old_row!r}")
    values = old_row.asDict() | {column_name: column_value}
    return Row(*values)(*values.values())


def json_to_dataframe_row(string: str) -> Row:
    """Return the fields of a JSON object as a row.

    Raises:
        ValueError: `string` is not a JSON object.
    """
    fields = json.loads(string)
    if not isinstance(fields, dict):
        raise ValueError(f"Expected a JSON object, such as '{{\"label\": 1}}'. Received: {string!r}")
    return Row(**fields)


def to_one_hot_encoded_dense(value: float, n_dim: int = 2) -> npt.NDArray[np.float64]:
    """Return an array of shape (n_dim,) with a 1 at index `value`, else 0.

    Raises:
        ValueError: `value` is not an integer from 0 to n_dim - 1.
    """
    index = float(value)
    if not (index.is_integer() and 0 <= index < n_dim):
        raise ValueError(
            f"Expected an integer from 0 to {n_dim - 1}. Received: value={value!r}, n_dim={n_dim}"
        )
    encoded = np.zeros(n_dim)
    encoded[int(index)] = 1.0
    return encoded


def serialize_keras_model(model: keras.Model) -> dict[str, Any]:
    """Return `{"model": Keras's own JSON, "weights": list of arrays}`, without optimizer and loss."""
    return {"model": model.to_json(), "weights": model.get_weights()}


def deserialize_keras_model(
    dictionary: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """Return the model, not compiled, from the dictionary that `serialize_keras_model` returned.

    Args:
        dictionary: a dictionary with the keys "model" and "weights".
        custom_objects: classes and functions of the model that are not registered with Keras, by name.

    Raises:
        ValueError: a key is missing, or the weights do not fit the model.
    """
    import keras

    if not {"model", "weights"} <= set(dictionary):
        raise ValueError(f"Expected the keys 'model' and 'weights'. Received: {sorted(dictionary)}")
    model = keras.models.model_from_json(dictionary["model"], custom_objects=custom_objects)
    model.set_weights(dictionary["weights"])
    return model


def uniform_weights(
    model: keras.Model, constraints: Sequence[float] = (-0.5, 0.5), seed: int | None = None
) -> None:
    """Draw new values for every trainable weight of `model`, uniformly from a range.

    Non-trainable weights stay unchanged.

    Args:
        model: the model; it is changed in place.
        constraints: smallest and largest value.
        seed: seed of the draw.

    Raises:
        ValueError: the smallest value is above the largest.
    """
    low, high = constraints
    if not low <= high:
        raise ValueError(f"Expected a range from low to high. Received: constraints={constraints!r}")
    generator = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(generator.uniform(low, high, tuple(weight.shape)))


def history_executors_average(history: Sequence[Window]) -> list[Averaged]:
    """Return one record per iteration, averaged over all workers that have it.

    Args:
        history: the result of a trainer's `get_history`.
    """
    return _as_history(history).averaged()


def history_executor(history: Sequence[Window], id: int) -> History:
    """Return the windows of one worker, in order.

    Args:
        history: the result of a trainer's `get_history`.
        id: index of the worker.
    """
    return _as_history(history).executor(id)


def _as_history(history: Sequence[Window]) -> History:
    # Imported here because the trainers import Keras.
    from distkeras.trainers.history import History

    return history if isinstance(history, History) else History(history)


if not TYPE_CHECKING:  # Else type checkers would accept any name in this module.

    def __getattr__(name: str) -> Any:
        raise missing(__name__, name)
