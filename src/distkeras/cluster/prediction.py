"""The columns that a prediction reads, and their form on the way to the worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.dry_run import names_of
from distkeras.cluster.forms import check_assembled
from distkeras.cluster.names import Table
from distkeras.cluster.padded import with_columns
from distkeras.cluster.source import assembled
from distkeras.cluster.validate import Names, check_leaf, match, match_features
from distkeras.worker.columns import RAW, integer_limits
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import Padding
from distkeras.worker.preprocess import Preprocess
from distkeras.worker.tensor_spec import TensorSpec

COLUMNAR_INPUT = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"
"""Setting of Spark from 4.3 on; see `in_rows`."""


def in_rows(dataframe: DataFrame) -> DataFrame:
    """Return the same rows in a form that Spark passes to Python by row.

    From 4.3 on Spark passes the columnar batches of Parquet, ORC and caches directly to Arrow UDFs. It fails
    if any of their columns, needed or not, has a type without an Arrow form, such as a Spark ML vector. A
    filter only produces rows; a nondeterministic one is neither pushed into the source nor dropped.
    """
    return dataframe.where(F.spark_partition_id() >= 0)


def columns_for(
    given: Names, inputs: tuple[TensorSpec, ...], feeding: Feeding, *, single: bool = False
) -> list[list[str]]:
    """Return the columns to read: those of each input that is not a mask, or any for `preprocess`.

    Args:
        given: the user's column names.
        inputs: inputs of the model.
        feeding: how rows become minibatches.
        single: take one column for each input; otherwise a single input may have several, combined.

    Raises:
        ValueError: too few or too many columns.
    """
    if feeding.preprocess is not None:
        return [[name] for name in names_of(given)]
    fed = with_columns(inputs, feeding)
    if single:
        return [[name] for name in match(given, fed, "features_col", "input")]
    return match_features(given, fed)


def casts(
    table: Table, features: Sequence[Sequence[str]], inputs: tuple[TensorSpec, ...], feeding: Feeding
) -> list[Column]:
    """Return the columns as they travel, named by their indices.

    Raises:
        ValueError: an unknown or ambiguous column.
        TypeError: a column of a type that the model cannot take.
    """
    if feeding.preprocess is not None:
        sources = [table.source(name, "features_col") for (name,) in features]
        return [source.cast(RAW).alias(str(index)) for index, source in enumerate(sources)]
    columns = []
    for index, (names, spec) in enumerate(zip(features, with_columns(inputs, feeding), strict=True)):
        sources = [table.source(name, "features_col") for name in names]
        for source in sources:
            check_leaf(source, spec.dtype, f"input {spec.name!r} of the model")
            if len(sources) > 1:
                check_assembled(source, spec)
        # In the JVM a value that does not fit would wrap around, or fail without naming column and row.
        whole = all(source.integral for source in sources) and integer_limits(spec.dtype) is not None
        columns.append(assembled(sources, "int64" if whole else spec.dtype).alias(str(index)))
    return columns


def travelling(names: Sequence[str], inputs: tuple[TensorSpec, ...], feeding: Feeding) -> Preprocess | None:
    """Return `preprocess` as it travels, or None."""
    if feeding.preprocess is None:
        return None
    return Preprocess.of(feeding.preprocess, tuple(names), inputs)


def paddings_for(
    names: Sequence[str], inputs: tuple[TensorSpec, ...], feeding: Feeding
) -> tuple[Padding | None, ...]:
    """Return how the rows of each column are padded, for inputs that are sequences."""
    if feeding.pad_to is None:
        return ()
    named = isinstance(feeding.pad_to, Mapping)
    paddings = []
    for name, spec in zip(names, with_columns(inputs, feeding), strict=True):
        padding = feeding.padding(name)
        length = spec.shape[0] if spec.shape else None
        is_sequence = spec.shape is None or (spec.shape != () and length in (None, padding and padding.to))
        paddings.append(padding if named or is_sequence else None)
    return tuple(paddings)
