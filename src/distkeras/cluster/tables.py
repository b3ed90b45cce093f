"""Training data other than DataFrames: a path, an object that exports Arrow, or arrays."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.interchange import from_dataframe
from pyspark.sql import DataFrame, SparkSession

from distkeras.cluster.arrays import BATCH_BYTES, ArrayTable, Roles, of_tuple
from distkeras.cluster.description import described
from distkeras.cluster.names import column_in_memory
from distkeras.cluster.partitions import LOGGER
from distkeras.cluster.session import local_session, present_session
from distkeras.cluster.settings import is_local
from distkeras.cluster.slots import count_slots
from distkeras.cluster.written import Written

FILE_BYTES = 96 * 2**20
"""Largest file that is written for Spark, which splits files of more than 128 MiB unevenly."""

TrainingData = Any
"""Types that `as_frame` takes."""

Table: TypeAlias = pa.Table | pa.RecordBatchReader | ArrayTable


@contextlib.contextmanager
def as_frame(data: TrainingData, roles: Roles, num_workers: int) -> Iterator[tuple[DataFrame, Roles]]:
    """Yield `data` as a DataFrame, with the roles of its columns.

    If Spark runs in this process, data in memory goes through Parquet files in a directory of Spark's, which
    is deleted after the block: this neither holds the rows in the JVM's memory nor copies them as a whole. To
    a cluster they travel through the driver's memory. Without a Spark session, a local one is created.

    Args:
        data: a DataFrame; the path of Parquet files, as Spark reads it; an object that exports Arrow by
            `__arrow_c_stream__`, `__arrow_c_array__` or `__dataframe__` (pyarrow, pandas, Polars); arrays as
            `(x, y)`, `(x, y, sample_weight)` or by column name. A stream is read once.
        roles: the roles of columns; a tuple defines its own.
        num_workers: number of workers for which files are written.

    Raises:
        TypeError: `data` has another type.
        ValueError: an unknown column, or arrays of different numbers of rows.
    """
    if isinstance(data, DataFrame):
        yield data, roles
        return
    if isinstance(data, str | os.PathLike):
        yield parquet_of(session_for_data(), os.fspath(data)), roles
        return
    session = session_for_data()
    if isinstance(data, Written) and is_local(session):
        yield parquet_of(session, str(data.folder)).toDF(*data.names), data.roles
        return
    table, roles = _table_of(data, roles)
    if not is_local(session):
        whole = table.read(0, table.num_rows) if isinstance(table, ArrayTable) else table
        rows = whole if isinstance(whole, pa.Table) else whole.read_all()
        generated = rows.rename_columns(_generated(rows.schema.names))
        yield session.createDataFrame(generated).toDF(*rows.schema.names), roles
        return
    # In Spark's directory: Spark removes files that a killed driver leaves there.
    with tempfile.TemporaryDirectory(prefix="distkeras-", dir=session.sparkContext._temp_dir) as folder:
        _write(table, Path(folder), num_workers, session.sparkContext.defaultParallelism)
        yield parquet_of(session, folder).toDF(*_names_of(table)), roles


def session_for_data() -> SparkSession:
    """Return the Spark session that there is, or a new local one."""
    present = present_session()
    if present is not None:
        return present
    LOGGER.info("There is no Spark session. Creating a local one with all cores of this machine")
    return local_session()


def slots_for(data: TrainingData) -> int:
    """Return the number of task slots of the session that `data` is trained in."""
    return count_slots(data.sparkSession if isinstance(data, DataFrame) else session_for_data())


def rows_up_to(data: TrainingData, count: int) -> int:
    """Return the number of rows of a DataFrame, at most `count`; `count` for other data, not read."""
    if not isinstance(data, DataFrame):
        return count
    with described(data.sparkSession, "counts the first rows"):
        return int(data.limit(count).count())


def parquet_of(session: SparkSession, address: str) -> DataFrame:
    """Return the rows of Parquet files."""
    with described(session, "reads the columns' names and types"):  # Spark runs a job for them.
        return session.read.parquet(address)


def _table_of(data: Any, roles: Roles) -> tuple[Table, Roles]:
    if isinstance(data, tuple):
        return of_tuple(data)
    if isinstance(data, Written):
        return pq.read_table(data.folder).rename_columns(list(data.names)), data.roles
    if isinstance(data, Mapping):
        table = ArrayTable({name: data[name] for name in _needed(list(data), roles)})
        return table, replace(roles, shapes=table.shapes)
    if hasattr(data, "__arrow_c_stream__"):
        # An object with a length is in memory already: a table's rows are known, and can be split evenly.
        stream = pa.table(data) if hasattr(data, "__len__") else pa.RecordBatchReader.from_stream(data)
    elif hasattr(data, "__arrow_c_array__"):
        stream = pa.Table.from_batches([pa.record_batch(data)])
    elif hasattr(data, "__dataframe__"):
        stream = from_dataframe(data)
    else:
        raise TypeError(_no_data(data))
    names = _needed(stream.schema.names, roles)
    return stream.select(names) if isinstance(stream, pa.Table) else _only(stream, names), roles


def _needed(names: list[str], roles: Roles) -> list[str]:
    """Return the columns among `names` that have a role.

    Raises:
        ValueError: a column with a role is not among them.
    """
    chosen: dict[str, None] = {}
    for argument in ("features_col", "label_col", "sample_weight_col"):
        given = getattr(roles, argument)
        listed = [given] if isinstance(given, str) else [*(given or ())]
        for name in given.values() if isinstance(given, Mapping) else listed:
            if name is not None:
                chosen[column_in_memory(name, names, argument)] = None
    return list(chosen)


def _only(reader: pa.RecordBatchReader, names: list[str]) -> pa.RecordBatchReader:
    schema = pa.schema([reader.schema.field(name) for name in names])
    return pa.RecordBatchReader.from_batches(schema, (batch.select(names) for batch in reader))


def _write(table: Table, folder: Path, num_workers: int, slots: int) -> None:
    """Write Parquet files of equal rows, equally many per worker; a stream, of unknown length, as one file.

    Spark makes a partition of each file of this size if there are at least `slots` files.
    """
    if isinstance(table, pa.RecordBatchReader):
        _write_file(table, folder / "0.parquet")
        return
    count = 1  # For one worker, several files would only put the order of the rows at risk.
    if num_workers > 1:
        per_worker = max(table.nbytes / num_workers / FILE_BYTES, slots / num_workers)
        count = max(1, min(num_workers * math.ceil(per_worker), table.num_rows))
    ends = [table.num_rows * index // count for index in range(count + 1)]
    for index, (first, end) in enumerate(itertools.pairwise(ends)):
        rows = table.read(first, end) if isinstance(table, ArrayTable) else table.slice(first, end - first)
        _write_file(rows, folder / f"{index:05}.parquet")


def _names_of(table: Table) -> list[str]:
    return table.names if isinstance(table, ArrayTable) else list(table.schema.names)


def _generated(names: list[str]) -> list[str]:
    """Return names for Parquet files, which allow fewer names than a table in memory."""
    return [f"c{index}" for index in range(len(names))]


def _write_file(rows: pa.Table | pa.RecordBatchReader, path: Path) -> None:
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    names = _generated(reader.schema.names)
    kinds = [_readable(field.type) for field in reader.schema]
    schema = pa.schema([*zip(names, kinds, strict=True)])
    # Plain values: compression does not pay off for data that is read once.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, store_schema=False) as file:
        for batch in reader:
            size = max(1, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes))
            file.write_batch(batch.rename_columns(names).cast(schema), row_group_size=size)


def _readable(kind: pa.DataType) -> pa.DataType:
    """Return the type that Spark can read in place of `kind`."""
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.large_list(_readable(kind.value_type))
    return kind


def _no_data(data: Any) -> str:
    mend = ""
    if hasattr(data, "toDF"):
        mend = " Convert the RDD to a DataFrame with toDF()."
    elif hasattr(data, "__array__"):
        mend = " Pass features and labels together: train((x, y))."
    elif hasattr(data, "__iter__"):
        mend = " Read it into arrays, or into Parquet files, first."
    return (
        "Expected a Spark DataFrame; the path of Parquet files; a table of pyarrow, pandas, Polars or "
        "another object that exports Arrow; or arrays, as (x, y), (x, y, sample_weight) or a dict by column."
        f"{mend} Received: data of type {type(data)}"
    )
