"""Checks of classifiers' labels."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.description import described
from distkeras.cluster.names import Table

ROW = 2**33
"""Distance between the first ids of two partitions in `monotonically_increasing_id`."""


def check_whole(dataset: DataFrame, name: Any) -> None:
    """Check that all labels of a column are integers, as class indices must be.

    This takes one pass over the column, if its type allows fractions.

    Args:
        dataset: the rows.
        name: name of the column; names of several columns are not checked.

    Raises:
        ValueError: a label is not an integer, or the column does not exist.
    """
    if not isinstance(name, str):
        return
    table = Table(dataset)
    source = table.source(name, "labelCol")
    if source.depth or not isinstance(source.leaf, T.FractionalType):
        return
    numbered = table.frame.select(
        source.column.alias("label"), F.monotonically_increasing_id().alias("place")
    )
    with described(dataset.sparkSession, "checks the labels"):
        found = numbered.where("label % 1 != 0").first()
    if found is not None:
        partition, row = divmod(found.place, ROW)
        raise ValueError(
            f"Column {name!r}, partition {partition}, row {row}: found the label {found.label:g}. Expected "
            "the classes 0, 1, 2 and so on. Index the classes (pyspark.ml.feature.StringIndexer); for "
            "probabilities as labels, use KerasEstimator."
        )
