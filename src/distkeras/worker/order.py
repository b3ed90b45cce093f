"""The order of a worker's rows: it depends only on (seed, partition, epoch) and on the sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Indices of rows in the partition."""


@dataclass(frozen=True)
class Shuffle:
    """Random orders in which every row comes exactly once.

    Args:
        seed: seed of the job.
        partition: index of the partition: workers shuffle differently.
        window: rows that are permuted together if not all rows can be.
    """

    seed: int
    partition: int
    window: int

    def within(self, epoch: int, index: int, num_rows: int) -> Rows:
        """Return a permutation of window `index` of a stream; the window holds `num_rows` rows."""
        return self._random(epoch, index).permutation(num_rows)

    def stream(self, epoch: int, num_rows: int) -> Iterator[Rows]:
        """Yield the rows window by window, in order, each window permuted."""
        for index, first in enumerate(range(0, num_rows, self.window)):
            yield first + self.within(epoch, index, min(self.window, num_rows - first))

    def whole(self, epoch: int, num_rows: int) -> Iterator[Rows]:
        """Yield one permutation of all rows."""
        yield self.within(epoch, 0, num_rows)

    def blocks(self, epoch: int, num_rows: int, block: int) -> Iterator[Rows]:
        """Yield permuted windows of blocks of `block` neighboring rows, drawn from the whole partition.

        It reads the disk by block rather than by row.
        """
        num_blocks = -(-num_rows // block)
        drawn = self._random(epoch, num_blocks).permutation(num_blocks)
        per_window = max(1, self.window // block)
        for index, first in enumerate(range(0, num_blocks, per_window)):
            starts = drawn[first : first + per_window] * block
            rows = (starts[:, None] + np.arange(block)).ravel()
            yield self._random(epoch, index).permutation(rows[rows < num_rows])

    def _random(self, epoch: int, index: int) -> np.random.Generator:
        entropy = (self.seed, self.partition, epoch, index)
        return np.random.default_rng([number % 2**32 for number in entropy])


def regroup(pieces: Iterator[Rows], size: int) -> Iterator[Rows]:
    """Yield the indices of `pieces` in groups of `size`; the last may be smaller."""
    rest = np.empty(0, np.int64)
    for piece in pieces:
        rows = np.concatenate([rest, piece]) if rest.size else piece
        whole = rows.size - rows.size % size
        for first in range(0, whole, size):
            yield rows[first : first + size]
        rest = rows[whole:]
    if rest.size:
        yield rest
