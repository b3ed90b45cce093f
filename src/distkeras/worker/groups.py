"""Group arriving rows by a size that does not depend on the size of the arriving tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distkeras.worker.decode import Table
from distkeras.worker.ragged import Ragged, join


def grouped(tables: Iterator[tuple[Table, int]], size: int) -> Iterator[tuple[Table, int]]:
    """Yield the rows of `tables` in groups of a multiple of `size`; the last may have any number.

    Rows left over from one table are joined with the next rows.
    """
    waiting: list[Table] = []
    num_waiting = 0
    for table, num_rows in tables:
        first = 0
        if num_waiting:
            first = min(size - num_waiting, num_rows)
            waiting.append(_part(table, 0, first))
            num_waiting += first
            if num_waiting < size:
                continue
            yield _join(waiting), size
        whole = first + (num_rows - first) // size * size
        if whole > first:
            yield _part(table, first, whole), whole - first
        waiting, num_waiting = [_part(table, whole, num_rows)], num_rows - whole
    if num_waiting:
        yield _join(waiting), num_waiting


def windows(tables: Iterator[tuple[Table, int]], size: int) -> Iterator[tuple[Table, int]]:
    """Yield the rows of `tables` in groups of `size`; the last may be smaller.

    Each group overwrites the one before: to allocate new memory for each would cost more than the copy.
    """
    window: dict[str, Any] = {}
    filled = 0
    for table, num_rows in tables:
        window = window or {name: _room(rows, size) for name, rows in table.items()}
        first = 0
        while first < num_rows:
            taken = min(size - filled, num_rows - first)
            for name, rows in table.items():
                if isinstance(rows, Ragged):
                    window[name].append(rows[first : first + taken])
                else:
                    window[name][filled : filled + taken] = rows[first : first + taken]
            first, filled = first + taken, filled + taken
            if filled == size:
                yield _closed(window, size), size
                filled = 0
    if filled:
        yield _closed(window, filled), filled


def _room(rows: Any, size: int) -> Any:
    """Return memory for `size` rows like `rows`: a list for rows that differ in length."""
    return [] if isinstance(rows, Ragged) else np.empty((size, *rows.shape[1:]), rows.dtype)


def _closed(window: dict[str, Any], num_rows: int) -> Table:
    """Return the rows of a window, and empty the window."""
    table: Table = {}
    for name, rows in window.items():
        table[name] = join(rows) if isinstance(rows, list) else rows[:num_rows]
        if isinstance(rows, list):
            rows.clear()
    return table


def _part(table: Table, first: int, end: int) -> Table:
    return {name: rows[first:end] for name, rows in table.items()}


def _join(tables: list[Table]) -> Table:
    return {name: join([table[name] for table in tables]) for name in tables[0]}
