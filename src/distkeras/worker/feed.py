"""Turn the Arrow record batches of a Spark task into minibatches."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pyarrow as pa

from distkeras.worker.arrivals import Arrivals, SourceLost
from distkeras.worker.columns import Columns
from distkeras.worker.decode import Table
from distkeras.worker.groups import grouped, windows
from distkeras.worker.minibatch import Batcher, Minibatch, MinibatchPosition
from distkeras.worker.order import Rows, Shuffle, regroup
from distkeras.worker.prefetch import Prefetch
from distkeras.worker.spool import Spool, Spooled

LOGGER = logging.getLogger("distkeras.worker")

CHUNK_BYTES = 2**20
"""Approximate bytes of rows that are converted, and passed to the training thread, at a time."""

WINDOW_BYTES = 64 * 2**20
"""Bytes of rows that are permuted together if a partition is still arriving or too large for memory."""

MEMORY_BYTES = 2**30
"""Size of the largest partition that is permuted as a whole: it should stay in the system's page cache."""

ORDER_BYTES = 64 * 2**20
"""Size of the largest permutation: even a small partition of short rows has very many rows."""


_END: list[Minibatch] = []


class Feed:
    """The minibatches of one partition, epoch by epoch.

    Epoch 0 is trained while the record batches arrive. Unless `num_epoch` is 1, they are also written to a
    spool on local disk, and every later epoch is read from the spool through a memory map. Memory is bounded
    for partitions of any size. Rows come in order of arrival or, with `shuffle`, in an order that depends
    only on (seed, partition, epoch), the number of rows, their width and `batch_size`; each row comes exactly
    once per epoch:

    - epoch 0: windows of `window_bytes` of rows in their order of arrival, each permuted;
    - later epochs: all rows permuted, if they take at most `memory_bytes` and are at most 8 million; else
      blocks of about 1 MiB of neighboring rows are drawn at random, and permuted by `window_bytes`.

    A task that replaces a lost one calls `epoch` with the epoch and minibatch that the lost task had reached.
    It gets the same minibatches, provided that its rows arrive in the same order.

    Args:
        batches: the record batches; each is read once.
        columns: the columns to read, and the form in which the model takes them.
        batch_size: rows per minibatch; the last of an epoch may have fewer.
        partition: index of the partition, for the order and for errors.
        shuffle: whether the order is random.
        seed: seed of the random orders, and of the random numbers of `columns.preprocess`; with `None` it
            gets none.
        num_rows: number of rows that must arrive; `None` if unknown. It detects a source that stops between
            two record batches, which otherwise looks like the end.
        num_epoch: number of epochs to read; 1 spools nothing. `None` if unknown.
        spool_dir: a directory on local disk; default: Spark's local directory.
        prefetch: prepare minibatches in a thread while record batches arrive, and always if
            `columns.preprocess` makes them.
        drop_remainder: skip the last minibatch of an epoch if it has fewer than `batch_size` rows.
        window_bytes: see above.
        memory_bytes: see above.

    Raises:
        ValueError: from `epoch`: a null, or a row of another length than the model takes; the message names
            column, partition and row.
        SpoolFullError: from `epoch`: the local disk is full.
        RowsChanged: from `epoch`: the rows are not `num_rows`, and the plan is known to change its rows.
        SourceLost: from `epoch`: reading the record batches failed, or the rows are not `num_rows`.

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
        seed: int | None = 0,
        num_rows: int | None = None,
        num_epoch: int | None = None,
        spool_dir: str | None = None,
        prefetch: bool = True,
        drop_remainder: bool = False,
        window_bytes: int = WINDOW_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.waited_seconds = 0.0
        self._batch_size = batch_size
        self._partition = partition
        self._prefetch = prefetch
        self._drop_remainder = drop_remainder
        self._seed = seed
        self._memory_bytes = memory_bytes
        # Windows and chunks hold whole minibatches: only minibatches across record batches are copied.
        row_bytes = sum(column.width * column.numpy_dtype.itemsize for column in columns.all)
        self._block = self._whole_minibatches(CHUNK_BYTES // max(1, row_bytes))
        window = self._whole_minibatches(window_bytes // max(1, row_bytes))
        self._shuffle = Shuffle(seed or 0, partition, window) if shuffle else None
        self._batcher = Batcher(columns, batch_size, 0 if seed is None else partition)
        # Rows may be much larger after padding or decoding than on arrival.
        self._chunk = batch_size if self._batcher.by_minibatch else self._block
        self._spool = None if num_epoch == 1 else Spool(spool_dir, num_rows)
        self._arrivals = Arrivals(batches, columns, partition, num_rows, self._spool)
        self._spooled: Spooled | None = None
        self._running: Prefetch[list[Minibatch]] | None = None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Minibatch]:
        """Yield the minibatches of an epoch, from number `start` on. Only one epoch is read at a time.

        Epochs may be read in any order and repeatedly; an epoch other than the first one read waits until all
        rows have arrived.

        Raises:
            SourceLost: the rows have been read once, and `num_epoch` is 1, so they were not stored; the task
                must restart to read them again.
        """
        if self._running is not None:
            self._running.close()
            self._running = None
        if epoch == 0 and not self._arrivals.begun:
            yield from self._ahead(self._stream(start))
            return
        if self._spool is None:
            raise SourceLost(
                "The rows of this feed have been read once and were not stored. Expected one epoch, read "
                f"once. Received: num_epoch=1, epoch={epoch}. The task restarts and reads the rows again."
            )
        chunks = self._replay(self._spool, epoch, start)
        if self._batcher.preprocess_seconds is not None:
            yield from self._ahead(chunks)
            return
        for chunk in chunks:
            yield from chunk

    def store(self) -> None:
        """Read all rows that have not arrived yet, and store them.

        Raises:
            SourceLost, ValueError: as `epoch`.
        """
        for _ in self._arrivals.tables():
            pass

    def close(self) -> None:
        """Free the disk space and end the thread. Minibatches already yielded stay valid."""
        if self._running is not None:
            # The thread may wait for a source that is stuck: it is a daemon and blocks no exit.
            self._running.close(timeout=1.0)
            self._running = None
        if self._spool is not None:
            self._spool.close()
        self._spooled = None
        if self.preprocess_seconds is not None:
            text = "Partition %d: `preprocess` took %.1f s; the training waited for minibatches for %.1f s"
            LOGGER.info(text, self._partition, self.preprocess_seconds, self.waited_seconds)

    @property
    def num_rows(self) -> int | None:
        """Rows of the partition; `None` until all have arrived."""
        return self._arrivals.num_rows if self._arrivals.ended else None

    @property
    def preprocess_seconds(self) -> float | None:
        """Seconds that the user's `preprocess` has taken so far; `None` without `preprocess`."""
        return self._batcher.preprocess_seconds

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
            while True:
                started = time.perf_counter()
                chunk = next(running, _END)
                self.waited_seconds += time.perf_counter() - started
                if chunk is _END:
                    return
                yield from chunk
        finally:
            running.stop()

    def _stream(self, start: int) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of epoch 0 as rows arrive."""
        pieces: Iterator[tuple[Table, Rows | range]]
        shuffle = self._shuffle
        if shuffle is None:
            tables = grouped(self._arrivals.tables(), self._batch_size)
            pieces = ((table, range(num_rows)) for table, num_rows in tables)
        else:
            tables = windows(self._arrivals.tables(), shuffle.window)
            pieces = (
                (table, shuffle.within(0, index, num_rows)) for index, (table, num_rows) in enumerate(tables)
            )
        yield from self._from(0, start, pieces)

    def _replay(self, spool: Spool, epoch: int, start: int) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of an epoch from the spool."""
        self.store()  # The order of an epoch covers all rows, so wait for the rest.
        if self._spooled is None:
            self._spooled = spool.read()
        spooled = self._spooled
        if self._shuffle is None:
            yield from self._from(epoch, start, iter([(spooled, range(self._arrivals.num_rows))]))
            return
        groups = regroup(self._order(self._shuffle, spool, epoch), self._chunk)
        yield from self._from(epoch, start, ((spooled, rows) for rows in groups))

    def _from(
        self, epoch: int, start: int, pieces: Iterator[tuple[Table | Spooled, Rows | range]]
    ) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of the given rows of tables, from number `start` on."""
        position = MinibatchPosition(self._seed, self._partition, epoch, start)
        skip = start * self._batch_size
        for table, rows in pieces:
            for chunk in self._chunks(table, rows[skip:], position):
                position = position._replace(minibatch=position.minibatch + len(chunk))
                yield chunk
            skip = max(0, skip - len(rows))

    def _order(self, shuffle: Shuffle, spool: Spool, epoch: int) -> Iterator[Rows]:
        if epoch == 0:
            return shuffle.stream(epoch, self._arrivals.num_rows)
        if spool.num_bytes <= self._memory_bytes and self._arrivals.num_rows * 8 <= ORDER_BYTES:
            return shuffle.whole(epoch, self._arrivals.num_rows)
        return shuffle.blocks(epoch, self._arrivals.num_rows, min(self._block, shuffle.window))

    def _chunks(
        self, table: Table | Spooled, rows: Rows | range, position: MinibatchPosition
    ) -> Iterator[list[Minibatch]]:
        """Yield the minibatches of some `rows` of a table, the first at `position`, a chunk at a time."""
        for first in range(0, len(rows), self._chunk):
            some = rows[first : first + self._chunk]
            index = slice(some.start, some.stop) if isinstance(some, range) else some
            part = {name: column[index] for name, column in table.items()}
            chunk = list(self._batcher.batches(part, self._kept(len(some), position.epoch), position))
            yield chunk
            position = position._replace(minibatch=position.minibatch + len(chunk))

    def _kept(self, num_rows: int, epoch: int) -> int:
        """Return how many rows of a chunk are handed on: the last of an epoch may fill no minibatch."""
        rest = num_rows % self._batch_size if self._drop_remainder else 0
        if rest:
            level = logging.INFO if epoch == 0 else logging.DEBUG
            text = "Partition %d, epoch %d: %d row(s) left out, which fill no minibatch of %d"
            LOGGER.log(level, text, self._partition, epoch, rest, self._batch_size)
        return num_rows - rest
