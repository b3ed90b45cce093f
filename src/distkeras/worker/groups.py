"""Rows as they arrive, in groups of a size that does not hang on how they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distkeras.worker.decode import Table
from distkeras.worker.ragged import Ragged, join


def grouped(tables: Iterator[tuple[Table, int]], size: int) -> Iterator[tuple[Table, int]]:
    """Yield the rows of `tables` in groups of a multiple of `size`; the last may be any number.

    Rows that no group of their own table holds are joined with the next ones.
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
    """Yield the rows of `tables` in groups of `size`, of which the last may be smaller.

    Each overwrites the one before.
    Fresh memory for each would cost the system more than the copy.
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
    """Return where `size` rows like `rows` can be collected: of any length, there is no room to write to."""
    return [] if isinstance(rows, Ragged) else np.empty((size, *rows.shape[1:]), rows.dtype)


def _closed(window: dict[str, Any], num_rows: int) -> Table:
    """Return the rows of a window, and begin it anew."""
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
