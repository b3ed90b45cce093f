"""Numbers over the time of a run, in at most so many buckets: their width doubles when they are full."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST = 1000
"""Buckets of a run: about the pixels of a chart's width."""

Column = npt.NDArray[np.float64]
Grid = npt.NDArray[np.float32]
Things = npt.NDArray[np.int64]


class Buckets:
    """Columns and grids whose rows are buckets of time. Time counts from the first one, in seconds.

    A column of sums adds up what falls into a bucket; a column of states keeps the newest value, NaN where
    there is none. A grid has a sum for each of a number of things, such as workers.

    Args:
        most: largest number of buckets, an even one.

    Attributes:
        count: number of buckets.
        width: seconds of a bucket.
        until: time of the newest number.
        folds: how often the width has doubled: then all numbers have moved.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._sums: dict[str, Column] = {}
        self._states: dict[str, Column] = {}
        self._grids: dict[str, Grid] = {}
        self.count, self.width, self.until, self.folds = 0, 0.0, 0.0, 0

    def at(self, time: float, seconds: float) -> int:
        """Return the bucket for numbers of `seconds` from `time` on; widen the buckets until it is there."""
        time = max(time, 0.0)
        self.width = self.width or max(seconds, 1e-9)
        while self.width < 0.99 * seconds or time >= self._most * self.width:
            self._fold()
        # Sums of seconds are not exact: a number just below a whole one is that one.
        index = min(int(time / self.width + 1e-6), self._most - 1)
        self.count = max(self.count, index + 1)
        self.until = max(self.until, time + seconds)
        return index

    def add(self, index: int, name: str, value: float) -> None:
        """Add to a column of sums."""
        if name not in self._sums:
            self._sums[name] = np.zeros(self._most)
        self._sums[name][index] += value

    def put(self, index: int, name: str, value: float) -> None:
        """Set a value of a column of states."""
        if name not in self._states:
            self._states[name] = np.full(self._most, np.nan)
        self._states[name][index] = value

    def add_in(self, index: int, name: str, things: Things, values: npt.NDArray[np.float64]) -> None:
        """Add to some things of a grid.

        Args:
            index: the bucket.
            name: the grid.
            things: indices, each once, shape (n,).
            values: what to add to each, shape (n,) or (n, parts).
        """
        if not len(things):
            return
        grid, size = self._grids.get(name), int(things.max()) + 1
        if grid is None or size > grid.shape[1]:
            wider = np.zeros((self._most, max(8, size + size // 2), *values.shape[1:]), np.float32)
            if grid is not None:
                wider[:, : grid.shape[1]] = grid
            self._grids[name] = grid = wider
        grid[index, things] += values

    def sums(self, name: str, since: int = 0) -> Column:
        """Return a column of sums from bucket `since` on, shape (count - since,)."""
        column = self._sums.get(name)
        return np.zeros(self.count - since) if column is None else column[since : self.count]

    def states(self, name: str, since: int = 0) -> Column:
        """Return a column of states from bucket `since` on, shape (count - since,)."""
        column = self._states.get(name)
        return np.full(self.count - since, np.nan) if column is None else column[since : self.count]

    def grid(self, name: str, things: Sequence[int], since: int = 0, parts: tuple[int, ...] = ()) -> Grid:
        """Return some things of a grid from bucket `since` on, shape (count - since, things, *parts)."""
        grid, wanted = self._grids.get(name), np.array(things, np.int64)
        found = np.zeros((self.count - since, len(wanted), *parts), np.float32)
        if grid is not None:
            known = wanted < grid.shape[1]
            found[:, known] = grid[since : self.count, wanted[known]]
        return found

    def names(self, prefix: str) -> list[str]:
        """Return what follows `prefix` in the names of the columns of sums, in the order of their coming."""
        return [name.removeprefix(prefix) for name in self._sums if name.startswith(prefix)]

    def seconds(self, since: int = 0) -> Column:
        """Return the seconds of each bucket so far, shape (count - since,); the newest may not be full."""
        covered = np.full(self.count, self.width)
        if self.count:
            covered[-1] = min(self.width, max(self.until - (self.count - 1) * self.width, 1e-9))
        return covered[since:]

    def _fold(self) -> None:
        """Double the width."""
        half = self._most // 2
        for columns in (self._sums, self._grids):
            for column in columns.values():
                column[:half] = column[0::2] + column[1::2]
                column[half:] = 0
        for column in self._states.values():
            first, second = column[0::2], column[1::2]
            column[:half] = np.where(np.isnan(second), first, second)
            column[half:] = np.nan
        self.count = (self.count + 1) // 2
        self.width *= 2
        self.folds += 1
