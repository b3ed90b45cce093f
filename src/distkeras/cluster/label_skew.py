"""Whether workers get other labels than one another, from the pass that counts the rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyspark.sql import Column, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)
from pyspark.sql import types as T  # noqa: N812

from distkeras.cluster.source import Source

SKEWED = 0.05
"""Share of the labels' variance between the workers above which it is told."""
CHANCE = 10.0
"""How many times larger it must be than chance makes it."""
PAIRS = 3
"""Of ways to divide the labels in two, besides their size: classes of one mean differ in some of them."""
SHIFT = 31
"""Bits between the two counts that one sum has. No partition has 2**31 rows."""


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
    # Few aggregates: planning and compiling them takes longer than to read the rows of a small table.
    mixed, two_bits = F.xxhash64(label), F.lit(1 | 1 << SHIFT)
    halves = {
        f"halves{number}": F.sum(F.shiftright(mixed, number).bitwiseAND(two_bits)) for number in range(PAIRS)
    }
    if source.depth == 0 and isinstance(source.leaf, T.StringType):
        return halves
    size = label.cast(T.DoubleType())
    return halves | {"mean": F.avg(size), "variance": F.var_pop(size)}


def skew_of(rows: Sequence[Row], prefix: str) -> float:
    """Return the share of the labels' variance that lies between the partitions, from 0 to 1.

    Args:
        rows: the aggregates of each partition, with its number of rows.
        prefix: prefix of the names of the aggregates.

    Returns:
        The largest share of all ways to look at the labels; 0 where chance could explain it.
    """
    if f"{prefix}halves0" not in rows[0]:
        return 0.0
    total = sum(row["rows"] for row in rows)
    shares = [row["rows"] / total for row in rows]
    largest = 0.0
    for moments in _moments(rows, prefix):
        if not all(value is not None and math.isfinite(value) for own in moments for value in own):
            continue
        means, variances = zip(*moments, strict=True)
        mean = sum(share * own for share, own in zip(shares, means, strict=True))
        between = sum(share * (own - mean) ** 2 for share, own in zip(shares, means, strict=True))
        within = sum(share * own for share, own in zip(shares, variances, strict=True))
        if between > 0:
            largest = max(largest, between / (between + within))
    return largest if largest > CHANCE * (len(rows) - 1) / total else 0.0


def _moments(rows: Sequence[Row], prefix: str) -> Iterator[list[tuple[Any, Any]]]:
    """Yield mean and variance in each partition: of each bit, which is 0 or 1, and of the labels as numbers.

    The last are `None` where all labels of a partition are null.
    """
    for number in range(PAIRS):
        sums = [row[f"{prefix}halves{number}"] for row in rows]
        for counts in ([each % 2**SHIFT for each in sums], [each >> SHIFT for each in sums]):
            means = [count / row["rows"] for count, row in zip(counts, rows, strict=True)]
            yield [(mean, mean * (1 - mean)) for mean in means]
    if f"{prefix}mean" in rows[0]:
        yield [(row[f"{prefix}mean"], row[f"{prefix}variance"]) for row in rows]


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
