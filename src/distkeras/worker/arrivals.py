"""The rows of a partition as they arrive in a Spark task: decoded, counted and written to the spool."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from distkeras.worker.columns import Columns
from distkeras.worker.decode import Table, decode
from distkeras.worker.spool import Spool


class SourceLost(Exception):
    """The record batches ended early, or their rows differ from those counted."""


class RowsChanged(ValueError):
    """The rows differ from those counted, and their plan is known to cause this."""


class Arrivals:
    """The record batches of one partition, each read once.

    Args:
        batches: the record batches.
        columns: the columns to read, and the form in which the model takes them.
        partition: index of the partition, for errors.
        expected: number of rows that must arrive; `None` if unknown.
        spool: stores the rows; `None` to store nothing.

    Attributes:
        num_rows: number of rows that have arrived.
        ended: whether all rows have arrived.
    """

    def __init__(
        self,
        batches: Iterator[pa.RecordBatch],
        columns: Columns,
        partition: int,
        expected: int | None,
        spool: Spool | None,
    ) -> None:
        self.num_rows = 0
        self.ended = False
        self._batches = iter(batches)
        self._columns = columns
        self._partition = partition
        self._expected = expected
        self._spool = spool

    @property
    def begun(self) -> bool:
        """Whether rows have arrived, or the partition has ended without rows."""
        return self.num_rows > 0 or self.ended

    def tables(self) -> Iterator[tuple[Table, int]]:
        """Yield the rows that have not arrived yet, with their number, by record batch.

        Raises:
            SourceLost: reading failed, or the number of rows is not `expected`.
            RowsChanged: the number of rows is not `expected`, and the plan is known to change its rows.
            ValueError: a row does not fit; see `decode`.
        """
        for batch in _arriving(self._batches):
            if batch.num_rows == 0:
                continue
            table = decode(batch, self._columns, partition=self._partition, first_row=self.num_rows)
            if self._spool is not None:
                self._spool.append(table)
            self.num_rows += batch.num_rows
            yield table, batch.num_rows
        self._check_number()
        self.ended = True

    def _check_number(self) -> None:
        if self._expected is None or self.num_rows == self._expected:
            return
        known = self._columns.may_change
        cause = known or "a UDF, a sample above a shuffle or a source that is written to"
        # If the plan is known to change its rows, a retry would not help.
        raise (SourceLost if known is None else RowsChanged)(
            f"Partition {self._partition} brought {self.num_rows} rows; {self._expected} were counted "
            f"before the training: the plan gives other rows each time it is evaluated, because of {cause}. "
            "Cache it (df.cache()), checkpoint it (df.checkpoint()) or write it to files, and train on the "
            "result."
        )


def _arriving(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield `batches`; raise `SourceLost` for an error of the source, unlike errors of later processing."""
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except Exception as error:
            raise SourceLost(f"The rows stopped arriving: {error}") from error
        yield batch
