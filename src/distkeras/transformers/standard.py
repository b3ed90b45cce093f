"""Scaling of columns to mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from pyspark.ml.functions import array_to_vector
from pyspark.ml.param.shared import HasInputCols, Param, Params, TypeConverters
from pyspark.ml.stat import Summarizer
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.description import described
from distkeras.cluster.source import Source, source_of
from distkeras.cluster.validate import find
from distkeras.transformers.base import ParamsTransformer, as_kind, check_numbers, elementwise


@final
class StandardTransformer(ParamsTransformer, HasInputCols):  # type: ignore[misc]
    """Standardizes each column over the rows of the DataFrame: `x' = (x - mean) / deviation`.

    The deviation is the population's standard deviation. A vector or array column is standardized element by
    element. If the deviation is zero, every number becomes 0, as in Spark's own `StandardScaler`. Nulls stay
    null and are ignored in both statistics; an array with a null inside is refused. A NaN makes its whole
    column, or element, NaN.

    Each call of `transform` makes one pass over all columns to compute the statistics. Training rows and test
    rows are therefore standardized separately. To apply the statistics of one DataFrame to another, use
    `pyspark.ml.feature.StandardScaler`.

    Args:
        columns: names of columns of numbers, vectors or arrays.
        suffix: suffix of the names of the new columns.

    Raises:
        ValueError: from `transform`: a column is unknown, or the DataFrame is a stream, which never ends.
        TypeError: from `transform`: a column does not hold numbers.
    """

    suffix: Param[str] = Param(
        Params._dummy(), "suffix", "suffix of the names of the new columns", TypeConverters.toString
    )

    def __init__(self, columns: Sequence[str] | None = None, suffix: str = "_normalized") -> None:
        super().__init__()
        self._setDefault(suffix="_normalized")
        if columns is not None:
            self._set(inputCols=[columns] if isinstance(columns, str) else list(columns))
        self._set(suffix=suffix)

    def _transform(self, dataset: DataFrame) -> DataFrame:
        if dataset.isStreaming:
            raise ValueError(
                "StandardTransformer: expected a static DataFrame, since mean and deviation need all rows. "
                "Received: a streaming one. Fit a pyspark.ml.feature.StandardScaler on past rows."
            )
        fields = {field.name: field for field in dataset.schema.fields}
        sources = []
        for name in self._value("inputCols"):
            field = find(name, fields, "columns")
            source = source_of(field)
            check_numbers(source, field, self, depth=(0, 1))
            sources.append(source)
        if not sources:
            return dataset
        asked = [_statistics(source).alias(str(i)) for i, source in enumerate(sources)]
        with described(dataset.sparkSession, "means and deviations for a StandardTransformer"):
            found = dataset.agg(*asked).first()
        suffix = self._value("suffix")
        return dataset.withColumns(
            {
                source.name + suffix: _standardized(source, statistics)
                for source, statistics in zip(sources, found or (), strict=True)
            }
        )


def _statistics(source: Source) -> Column:
    """Return the mean and the deviation or variance of a column, as an aggregate."""
    if not source.depth:
        number = source.column.cast("double")
        return F.struct(F.avg(number).alias("mean"), F.stddev_pop(number).alias("deviation"))
    vector = source.column if source.vector else array_to_vector(source.column.cast("array<double>"))
    return Summarizer.metrics("mean", "variance", "count").summary(
        F.when(source.column.isNotNull(), vector) if not source.vector else vector
    )


def _standardized(source: Source, found: Any) -> Column:
    if not source.depth:
        mean, deviation = found["mean"], found["deviation"]
        return elementwise(source, lambda x: _scaled(x, F.lit(mean), F.lit(deviation)))
    # Spark's Summarizer gives the sample variance; convert it to that of the population.
    count = max(1, found["count"])
    deviations = np.sqrt(found["variance"].toArray() * (count - 1) / count)
    pairs = zip(found["mean"].toArray(), deviations, strict=True)
    statistics = F.array(
        *(F.struct(F.lit(float(m)).alias("m"), F.lit(float(d)).alias("d")) for m, d in pairs)
    )
    array = F.zip_with(source.array("float64"), statistics, lambda x, by: _scaled(x, by["m"], by["d"]))
    if not source.vector and source.leaf.typeName() == "float":
        array = array.cast("array<float>")
    return as_kind(source, array)


def _scaled(x: Column, mean: Column, deviation: Column) -> Column:
    zero = F.when(x.isNotNull(), F.lit(0.0))
    return F.when(deviation == 0, zero).otherwise((x - mean) / deviation)
