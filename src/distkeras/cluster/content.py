"""A name for what rows hold, whatever their order and their partitions, made in the pass that counts them.

Of every row a few values are looked at, and of one row in sixteen, which those values choose, all: to read
all of every row took two thirds as long as the pass itself for 20 columns of numbers, and as long for arrays
of 784. Other rows, and columns that are made otherwise, are seen; a change here and there may not be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyspark.sql import Column, Row
from pyspark.sql import functions as F  # noqa: N812 (Spark's own custom)

from distkeras.cluster.source import Source

PROBED, PLACES, ONE_IN = 4, 4, 16
"""Columns of which every row is looked at; places in an array; one row in so many is read as a whole."""

NAME = "content"

BITS = 33
"""Of the hash of a row: the sum over a partition of up to a billion rows stays within Spark's integers."""


def content_question(sources: Sequence[Source]) -> Column:
    """Return the aggregate that `content_of` needs of a partition, under the name `NAME`."""
    step = max(1, -(-len(sources) // PROBED))
    few = _hash([probe for source in sources[::step] for probe in _probes(source)])
    whole = _hash([source.array() for source in sources])
    hashed = F.when(F.pmod(few, F.lit(ONE_IN)) == 0, whole).otherwise(few)
    # A sum: it is the same in any order, and two rows that are alike do not cancel out.
    return F.sum(F.shiftrightunsigned(hashed, 64 - BITS)).alias(NAME)


def content_of(rows: Iterable[Row]) -> str:
    """Put together the answers to `content_question` from every partition."""
    return f"{sum(row[NAME] for row in rows) % 2**64:016x}"


def _hash(values: Sequence[Column]) -> Column:
    # The number of its column before each: a null alone leaves a hash as it was.
    return F.xxhash64(*(part for index, value in enumerate(values) for part in (F.lit(index), value)))


def _probes(source: Source) -> list[Column]:
    """Return what is looked at in every row: a number or text; of an array, its length and some elements."""
    array = source.array()
    if source.depth == 0 or source.binary:
        return [array]
    lengths = []
    for _ in range(1, source.depth):
        lengths.append(F.size(array))
        array = F.get(array, (F.size(array) / 2).cast("int"))
    size = F.size(array)
    places = [F.get(array, (size * place / PLACES).cast("int")) for place in range(PLACES)]
    return [*lengths, size, *places]
