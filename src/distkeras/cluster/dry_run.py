"""Try the user's `preprocess` on the driver before any worker starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame

from distkeras.cluster.description import described
from distkeras.cluster.source import Source
from distkeras.cluster.validate import Names, Weights
from distkeras.worker.columns import RAW, Column, Columns
from distkeras.worker.decode import decode
from distkeras.worker.preprocess import Function, Preprocess, Preprocessor, as_given
from distkeras.worker.step_buffer import map_leaves
from distkeras.worker.tensor_spec import TensorSpec

ROWS = 4
"""Number of rows for the trial call."""


@dataclass(frozen=True)
class DryRun:
    """The result of a trial call of `preprocess`.

    Attributes:
        preprocess: the function, as it travels; `made` is empty if there are no rows.
        row_bytes: bytes of the longest row, by column.
    """

    preprocess: Preprocess
    row_bytes: Mapping[str, int]


def names_of(given: Names | Weights) -> list[str]:
    """Return the column names in a user's argument."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    listed = given.values() if isinstance(given, Mapping) else given
    return [name for name in listed if name is not None]


def try_out(
    df: DataFrame, function: Function, sources: Sequence[Source], inputs: tuple[TensorSpec, ...]
) -> DryRun:
    """Call `function` with the first rows of `df`, as workers will call it with theirs.

    Args:
        df: the rows.
        function: the user's function.
        sources: the columns that it receives.
        inputs: inputs of the model.

    Raises:
        ValueError: its result does not fit the model; or a null.
        Exception: any exception that it raises.
    """
    names = [f"c{index}" for index in range(len(sources))]
    casts = [source.cast(RAW).alias(name) for source, name in zip(sources, names, strict=True)]
    with described(df.sparkSession, "tries `preprocess` on some rows"):
        table: pa.Table = df.select(*casts).limit(ROWS).toArrow().combine_chunks()
    given = tuple(source.name for source in sources)
    preprocess = Preprocess.of(function, given, inputs)
    if table.num_rows == 0:
        return DryRun(preprocess, dict.fromkeys(given, 1))
    (batch,) = table.to_batches()
    # By the user's names, which errors quote.
    batch = pa.RecordBatch.from_arrays(batch.columns, list(given))
    raw = tuple(Column(name, (1,), RAW) for name in given)
    rows = decode(batch, Columns((), raw=raw))
    parts = Preprocessor(preprocess)(
        {name: as_given(rows[name]) for name in given},
        batch.num_rows,
        np.random.default_rng(0),
        "the beginning of the data",
    )
    sizes = {
        name: max(batch.column(index).slice(row, 1).nbytes for row in range(batch.num_rows))
        for index, name in enumerate(given)
    }
    return DryRun(replace(preprocess, made=map_leaves(_no_rows, parts)), sizes)


def _no_rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array[:0]
