"""Whether workers get other labels than one another, from the pass that counts the rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source

SKEWED = 0.05
"""Share of the labels' variance between the workers above which it is told."""
CHANCE = 10.0
"""How many times larger it must be than chance makes it."""
HALVES = 6
"""Ways to divide the labels in two, besides their size: classes of one mean differ in some of them."""


class SkewedLabelsWarning(UserWarning):
    """The workers' rows have different labels."""


def skew_questions(source: Source) -> dict[str, Column]:
    """Return aggregates over the labels of a partition, by name; none for labels of a kind unknown here.

    A label of one dimension, such as a class in one-hot form, counts as the place of its largest number.
    """
    if source.binary or source.depth > 1:
        return {}
    label = source.column
    if source.depth == 1:
        array = source.array()
        label = F.array_position(array, F.array_max(array))
    halves = [F.pmod(F.xxhash64(label, F.lit(number)), F.lit(2)) for number in range(HALVES)]
    if not (source.depth == 0 and isinstance(source.leaf, T.StringType)):
        halves.append(label.cast("double"))
    asked: dict[str, Column] = {}
    for number, values in enumerate(halves):
        asked |= {f"mean{number}": F.avg(values), f"variance{number}": F.var_pop(values)}
    return asked


def skew_of(rows: Sequence[Row], prefix: str) -> float:
    """Return the share of the labels' variance that lies between the partitions, from 0 to 1.

    Args:
        rows: the aggregates of each partition, with its number of rows.
        prefix: prefix of the names of the aggregates.

    Returns:
        The largest share of all ways to look at the labels; 0 where chance could explain it.
    """
    total = sum(row["rows"] for row in rows)
    largest = 0.0
    for number in range(HALVES + 1):
        if f"{prefix}mean{number}" not in rows[0]:
            continue
        means = [row[f"{prefix}mean{number}"] for row in rows]
        within = [row[f"{prefix}variance{number}"] for row in rows]
        if not all(value is not None and math.isfinite(value) for value in (*means, *within)):
            continue
        shares = [row["rows"] / total for row in rows]
        mean = sum(share * own for share, own in zip(shares, means, strict=True))
        between = sum(share * (own - mean) ** 2 for share, own in zip(shares, means, strict=True))
        rest = sum(share * own for share, own in zip(shares, within, strict=True))
        if between > 0:
            largest = max(largest, between / (between + rest))
    return largest if largest > CHANCE * (len(rows) - 1) / total else 0.0


def told_of(labels: Mapping[str, Source], rows: Sequence[Row]) -> str | None:
    """Return a text that says that the workers' labels differ; `None` if they are alike.

    Args:
        labels: the columns of labels, by the prefix of their aggregates' names.
        rows: as in `skew_of`.
    """
    skews = [(skew_of(rows, prefix), source.name) for prefix, source in labels.items() if rows]
    skew, name = max(skews, default=(0.0, ""))
    if skew < SKEWED:
        return None
    return (
        f"The workers' partitions have different labels: {skew:.0%} of the variance of column {name!r} lies "
        "between them. Asynchronous training then favours the labels of fast workers, and workers drift "
        "apart within long windows. train(..., shuffle=True) gives every worker a random part of the rows. "
        "If rows must stay where they are, use RescaledASGD, RingleaderASGD or a synchronous algorithm: they "
        "give all workers equal influence."
    )
