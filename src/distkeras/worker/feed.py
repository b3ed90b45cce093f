"""From the Arrow record batches of a Spark task to minibatches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from distkeras.worker.columns import Columns
from distkeras.worker.decode import Table, decode
from distkeras.worker.minibatch import Cutter, Minibatch
from distkeras.worker.order import Rows, Shuffle, regroup
from distkeras.worker.prefetch import Prefetch
from distkeras.worker.spool import Spool, Spooled

CHUNK_BYTES = 2**20
"""Rows are brought to the model's form, and handed to the training thread, about this much at a time."""

WINDOW_BYTES = 64 * 2**20
"""Rows that are permuted together where a partition is still arriving, or too large for memory."""

MEMORY_BYTES = 2**30
"""The largest partition that is permuted as a whole: its pages should stay in the system's cache."""

ORDER_BYTES = 64 * 2**20
"""The largest permutation: of short rows, even a small partition has very many."""


class SourceLost(Exception):
    """The record batches ended in the middle, or were not those that had been counted."""


class Feed:
    """The minibatches of one partition, epoch by epoch.

    Epoch 0 is trained while the record batches arrive; they are written to a spool on local disk on the way
    (unless `num_epoch` is 1), from which every later epoch is read through a memory map. Memory is bounded
    whatever the size of the partition. Rows come as they arrive or, with `shuffle`, in an order that depends
    on (seed, partition, epoch), the number of rows, their width and `batch_size` alone, each exactly once an
    epoch:

    - epoch 0: windows of `window_bytes` of rows in their order of arrival, each permuted;
    - later epochs: all rows permuted, if they take at most `memory_bytes` and are at most 8 million; else
      blocks of about 1 MiB of neighboring rows are drawn at random, and permuted by `window_bytes` of them.

    A task that replaces a lost one passes the epoch and the minibatch at which that one stood to `epoch`, and
    sees the minibatches that it would have seen, provided that its rows arrive in the same order.

    Args:
        batches: the record batches; each is read once.
        columns: what to take from them, and in what form the model takes it.
        batch_size: rows of a minibatch; the last of an epoch may have fewer.
        partition: index of the partition, for the order and for errors.
        shuffle: random order.
        seed: of the random orders.
        num_rows: how many rows must arrive; `None`: unknown. A source that is cut off between two record
            batches looks like one that has ended.
        num_epoch: epochs that will be asked for; 1 spools nothing. `None`: unknown.
        spool_dir: a directory on local disk; default: that of Spark.
        prefetch: prepare minibatches ahead in a thread while record batches arrive.
        window_bytes: see above.
        memory_bytes: see above.

    Raises:
        ValueError: from `epoch`: a null, or a row of another length than the model takes; the message names
            column, partition and row.
        SpoolFullError: from `epoch`: the local disk has no room.
        SourceLost: from `epoch`: reading the record batches failed, or `num_rows` of them did not come.

    Example:
        with Feed(batches, columns, batch_size=32, partition=0) as feed:
            for epoch in range(3):
                for minibatch in feed.epoch(epoch):
                    model.train_on_batch(minibatch.x, minibatch.y)
    """

    def __init__(
        self,
        batches: Iterator[pa.RecordBatch],
        columns: Columns,
        *,
        batch_size: int,
        partition: int,
        shuffle: bool = False,
        seed: int = 0,
        num_rows: int | None = None,
        num_epoch: int | None = None,
        spool_dir: str | None = None,
        prefetch: bool = True,
        window_bytes: int = WINDOW_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.num_rows: int | None = None
        self._expected = num_rows
        self._batches = iter(batches)
        self._columns = columns
        self._batch_size = batch_size
        self._partition = partition
        self._prefetch = prefetch
        self._memory_bytes = memory_bytes
        # Windows and chunks hold whole minibatches, so that only those at a record batch's end are copied.
        row_bytes = sum(column.width * column.numpy_dtype.itemsize for column in columns.all)
        self._chunk = self._whole_minibatches(CHUNK_BYTES // max(1, row_bytes))
        window = self._whole_minibatches(window_bytes // max(1, row_bytes))
        self._shuffle = Shuffle(seed, partition, window) if shuffle else None
        self._cutter = Cutter(columns, batch_size)
        self._spool = None if num_epoch == 1 else Spool(spool_dir, num_rows)
        self._spooled: Spooled | None = None
        self._arrived = 0
        self._running: Prefetch[list[Minibatch]] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. One epoch is read at a time.

        Epochs may be asked for in any order, and again; an epoch other than the first asked for waits until
        all rows have arrived.

        Raises:
            SourceLost: the rows have been streamed by and `num_epoch` was 1, so that nothing was kept: to see
                them again, the task must be started again.
        """
        if self._running is not None:
            self._running.close()
            self._running = None
        if self._arrived == 0 and self.num_rows is None and epoch == 0:
            yield from self._ahead(self._stream(start))
            return
        if self._spool is None:
            raise SourceLost(
                "The rows of this feed have been read once and were not kept. Expected one epoch, asked for "
                f"once. Received: num_epoch=1, epoch={epoch}. The task is started again, and gets them anew."
            )
        for chunk in self._replay(self._spool, epoch, start):
            yield from chunk

    def close(self) -> None:
        """Free the disk space and end the thread. The minibatches handed out stay valid."""
        if self._running is not None:
            # The thread may wait for a source that is stuck: it is a daemon and holds up nobody.
            self._running.close(timeout=1.0)
            self._running = None
        if self._spool is not None:
            self._spool.close()
        self._spooled = None

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _whole_minibatches(self, rows: int) -> int:
        return max(1, rows // self._batch_size) * self._batch_size

    def _ahead(self, chunks: Iterator[list[Minibatch]]) -> Iterator[Minibatch]:
        if not self._prefetch:
            for chunk in chunks:
                yield from chunk
            return
        running = self._running = Prefetch(chunks)
        try:
            for chunk in running:
                yield from chunk
        finally:
            running.stop()

    def _tables(self) -> Iterator[tuple[Table, int]]:
        """Yield the rows that have not arrived yet, and their number, record batch by record batch."""
        for batch in _arriving(self._batches):
            if batch.num_rows == 0:
                continue
            table = decode(batch, self._columns, partition=self._partition, first_row=self._arrived)
            if self._spool is not None:
                self._spool.append(table)
            self._arrived += batch.num_rows
            yield table, batch.num_rows
        if self._expected is not None and self._arrived != self._expected:
            raise SourceLost(
                f"Partition {self._partition} brought {self._arrived} rows; {self._expected} were counted "
                "before the training. If its plan gives other rows each time, cache it or write it out."
            )
        self.num_rows = self._arrived

    def _stream(self, start: int) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of epoch 0 as rows arrive."""
        pieces: Iterator[tuple[Table, Rows | range]]
        shuffle = self._shuffle
        if shuffle is None:
            tables = _grouped(self._tables(), self._batch_size)
            pieces = ((table, range(num_rows)) for table, num_rows in tables)
        else:
            tables = _windows(self._tables(), shuffle.window)
            pieces = (
                (table, shuffle.within(0, index, num_rows)) for index, (table, num_rows) in enumerate(tables)
            )
        skip = start * self._batch_size
        for table, rows in pieces:
            yield from self._chunks(table, rows[skip:])
            skip = max(0, skip - len(rows))

    def _replay(self, spool: Spool, epoch: int, start: int) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of an epoch from the spool."""
        for _ in self._tables():  # The order of an epoch is drawn over all rows: wait for the rest.
            pass
        if self._spooled is None:
            self._spooled = spool.read()
        skip = start * self._batch_size
        if self._shuffle is None:
            yield from self._chunks(self._spooled, range(self._arrived)[skip:])
            return
        for rows in regroup(self._order(self._shuffle, spool, epoch), self._chunk):
            yield from self._chunks(self._spooled, rows[skip:])
            skip = max(0, skip - len(rows))

    def _order(self, shuffle: Shuffle, spool: Spool, epoch: int) -> Iterator[Rows]:
        if epoch == 0:
            return shuffle.stream(epoch, self._arrived)
        if spool.num_bytes <= self._memory_bytes and self._arrived * 8 <= ORDER_BYTES:
            return shuffle.whole(epoch, self._arrived)
        return shuffle.blocks(epoch, self._arrived, min(self._chunk, shuffle.window))

    def _chunks(self, table: Table | Spooled, rows: Rows | range) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of some `rows` of a table, a chunk at a time."""
        for first in range(0, len(rows), self._chunk):
            some = rows[first : first + self._chunk]
            index = slice(some.start, some.stop) if isinstance(some, range) else some
            part = {name: column[index] for name, column in table.items()}
            yield list(self._cutter.cut(part, len(some)))


def _arriving(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield `batches`; tell an error of the source from those of what is made of it."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            raise SourceLost(f"The rows stopped arriving: {error}") from error
        yield batch


def _grouped(tables: Iterator[tuple[Table, int]], size: int) -> Iterator[tuple[Table, int]]:
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


def _windows(tables: Iterator[tuple[Table, int]], size: int) -> Iterator[tuple[Table, int]]:
    """Yield the rows of `tables` in groups of `size`, of which the last may be smaller.

    Each overwrites the one before.
    Fresh memory for each would cost the system more than the copy.
    """
    window: Table = {}
    filled = 0
    for table, num_rows in tables:
        if not window:
            window = {name: np.empty((size, *rows.shape[1:]), rows.dtype) for name, rows in table.items()}
        first = 0
        while first < num_rows:
            taken = min(size - filled, num_rows - first)
            for name, rows in table.items():
                window[name][filled : filled + taken] = rows[first : first + taken]
            first, filled = first + taken, filled + taken
            if filled == size:
                yield window, size
                filled = 0
    if filled:
        yield _part(window, 0, filled), filled


def _part(table: Table, first: int, end: int) -> Table:
    return {name: rows[first:end] for name, rows in table.items()}


def _join(tables: list[Table]) -> Table:
    if len(tables) == 1:
        return tables[0]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
