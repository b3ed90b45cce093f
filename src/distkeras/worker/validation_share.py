"""The validation rows of a worker: they arrive before its training rows, in the same partition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from distkeras.worker.columns import Columns
from distkeras.worker.feed import Feed
from distkeras.worker.metric_states import packed

if TYPE_CHECKING:
    from distkeras.algorithms import Vector
    from distkeras.worker.replica import Replica


@dataclass(frozen=True)
class ValidationShare:
    """The validation rows of all workers.

    Attributes:
        columns: how they become the model's inputs and labels.
        rows: number of validation rows in each worker's partition, as counted before the training.
        batch_size: rows per minibatch.
        flag: name of the column that is true in these rows, and false in the training rows.
    """

    columns: Columns
    rows: tuple[int, ...]
    batch_size: int
    flag: str


class ValidationRows:
    """The validation rows of one worker, on its local disk.

    Args:
        feed: the rows; `None` for no validation.
    """

    def __init__(self, feed: Feed | None) -> None:
        self.feed = feed

    def evaluate(self, replica: Replica, vector: Vector) -> bytes:
        """Return the states of the metrics of `replica` at the weights `vector`; empty without rows."""
        return b"" if self.feed is None else packed(replica.evaluate(vector, self.feed.epoch(0)))

    def __enter__(self) -> ValidationRows:
        return self

    def __exit__(self, *_: object) -> None:
        if self.feed is not None:
            self.feed.close()


def split_off(
    batches: Iterator[pa.RecordBatch], share: ValidationShare | None, worker: int
) -> tuple[ValidationRows, Iterator[pa.RecordBatch]]:
    """Read the validation rows of a partition, and return them and the record batches of the training rows.

    Raises:
        SourceLost, ValueError: as `Feed.epoch`.
    """
    if share is None:
        return ValidationRows(None), batches
    split = _Split(batches, share.flag)
    feed = Feed(
        split.flagged(),
        share.columns,
        batch_size=share.batch_size,
        partition=worker,
        seed=None,
        num_rows=share.rows[worker],
    )
    feed.store()
    return ValidationRows(feed), split.rest()


class _Split:
    """Record batches that begin with flagged rows."""

    def __init__(self, batches: Iterator[pa.RecordBatch], flag: str) -> None:
        self._batches = iter(batches)
        self._flag = flag
        self._rest: list[pa.RecordBatch] = []

    def flagged(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            flags = batch.column(self._flag).to_numpy(zero_copy_only=False)
            count = int(flags.sum())
            if not flags[:count].all():
                raise ValueError("Expected the validation rows before the training rows of a partition.")
            yield batch[:count]
            if count < batch.num_rows:
                self._rest.append(batch[count:])
                return

    def rest(self) -> Iterator[pa.RecordBatch]:
        yield from self._rest
        yield from self._batches
