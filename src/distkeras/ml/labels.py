"""Labels of classifiers."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.names import Table

ROW = 2**33
"""By which `monotonically_increasing_id` sets partitions apart."""


def check_whole(dataset: DataFrame, name: Any) -> None:
    """Refuse a column of labels with a number that is no integer: a class has none between.

    A pass over this one column, where its type allows for fractions.

    Args:
        dataset: the rows.
        name: of the column; names of several are let through.

    Raises:
        ValueError: there is one, or no such column.
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
    found = numbered.where("label % 1 != 0").first()
    if found is not None:
        partition, row = divmod(found.place, ROW)
        raise ValueError(
            f"Column {name!r}, partition {partition}, row {row}: found the label {found.label:g}. Expected "
            "the classes 0, 1, 2 and so on. Index the classes (pyspark.ml.feature.StringIndexer); for "
            "probabilities as labels there is KerasEstimator."
        )
