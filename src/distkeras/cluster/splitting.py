"""Splits the data of a training into rows to train on and rows to validate on."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame

from distkeras.cluster.tables import TrainingData, parquet_of, session_for_data


def split_rows(data: TrainingData, part: float, seed: int) -> tuple[TrainingData, TrainingData]:
    """Return the rows to train on and those to validate on.

    Arrays and tables in memory give their last rows to the validation, like Keras; a DataFrame or Parquet
    files give a sample drawn with `seed`.

    Args:
        data: as in `DistributedTrainer.train`.
        part: part of the rows for the validation, more than 0 and less than 1.
        seed: of the sample.

    Raises:
        ValueError: one of the two would have no rows.
        TypeError: the number of rows is not known, as that of a stream.
    """
    if isinstance(data, str | os.PathLike):
        data = parquet_of(session_for_data(), os.fspath(data))
    if isinstance(data, DataFrame):
        train, held = data.randomSplit([1 - part, part], seed)
        return train, held
    if not isinstance(data, tuple | Mapping):
        if not hasattr(data, "__len__"):
            raise TypeError(
                "Expected rows in memory, or a DataFrame, to split: pass `validation_data` in place of "
                f"`validation_split`. Received: data of type {type(data)}"
            )
        data = data if isinstance(data, pa.Table) else pa.table(data)
        first = _first_of_validation(data.num_rows, part)
        return data.slice(0, first), data.slice(first)
    lengths = set(_lengths(data))
    if len(lengths) != 1:
        raise ValueError(f"Expected arrays with equal numbers of rows. Received: rows={sorted(lengths)}")
    first = _first_of_validation(lengths.pop(), part)
    return _map(data, slice(0, first)), _map(data, slice(first, None))


def _first_of_validation(rows: int, part: float) -> int:
    first = math.floor(rows * (1 - part))
    if not 0 < first < rows:
        raise ValueError(
            "Expected at least one row to train on and one to validate on. "
            f"Received: {rows} rows, validation_split={part!r}"
        )
    return first


def _lengths(data: Any) -> Iterator[int]:
    """Yield the number of rows of each array in a tuple or dict, at any depth."""
    if isinstance(data, Mapping):
        data = tuple(data.values())
    if isinstance(data, tuple | list):
        for part in data:
            yield from _lengths(part)
    elif data is not None:
        yield len(data)


def _map(data: Any, rows: slice) -> Any:
    if isinstance(data, Mapping):
        return {name: _map(part, rows) for name, part in data.items()}
    if isinstance(data, tuple | list):
        return type(data)(_map(part, rows) for part in data)
    return None if data is None else data[rows]
