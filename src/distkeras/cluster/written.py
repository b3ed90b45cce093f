"""Minibatches of arrays, as Keras's datasets yield them, written out once to Parquet files."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from distkeras.cluster.arrays import BATCH_BYTES, ArrayTable, Roles, named_parts

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Batch = tuple[Any, Any, Any]
"""`(x, y, sample_weight)` of a minibatch: arrays or structures of them; the last two may be `None`."""

LARGEST_FILE = 96 * 2**20
"""Bytes of a file, if there may be several: Spark splits files of more than 128 MiB unevenly."""

MOST_BATCHES = 200_000
"""Minibatches after which data of unknown length counts as endless."""


@dataclass(frozen=True)
class Written:
    """Rows in Parquet files in a folder of this machine.

    Attributes:
        folder: the folder; its owner deletes it.
        names: names of the columns, in the files' order.
        roles: their roles.
        num_rows: number of rows.
        num_batches: number of minibatches from which they come.
        batch_size: rows of the first minibatch.
        first: the first minibatch.
        nbytes: bytes of the files.
    """

    folder: Path
    names: tuple[str, ...]
    roles: Roles
    num_rows: int
    num_batches: int
    batch_size: int
    first: Batch
    nbytes: int


def write_batches(
    batches: Iterable[Batch], folder: Path, *, most: int | None = None, one_file: bool = False
) -> Written:
    """Write the minibatches out to new files in `folder`.

    Args:
        batches: the minibatches, of one structure and of rows of one shape.
        folder: an empty folder.
        most: number of minibatches to take; `None` for all.
        one_file: write one file, which keeps the order of the rows for one worker.

    Raises:
        ValueError: there is no minibatch; they differ in structure, or in the shape of their rows; there are
            more than `MOST_BATCHES` without an end, or the disk is nearly full.
    """
    started = time.monotonic()
    writer = _Writer(folder, one_file)
    iterator = iter(batches)
    # Not `islice`, nor a test after `next`: a generator is left where Keras would leave it.
    while most is None or writer.num_batches < most:
        try:
            batch = next(iterator)
        except StopIteration:
            break
        writer.add(batch)
        if most is None and writer.num_batches >= MOST_BATCHES:
            raise ValueError(
                "Expected a finite dataset, or `steps_per_epoch` (`steps`, `validation_steps`): it is "
                f"written to files before the training starts. Received: {writer.num_batches} minibatches so "
                "far"
            )
    written = writer.close()
    logger.info(
        "The dataset was written once, to %.1f MB of Parquet files in %s: %d rows of %d minibatches, "
        "in %.1f s. Every epoch reads these rows: random augmentation in the dataset has run only once.",
        written.nbytes / 1e6,
        folder,
        written.num_rows,
        written.num_batches,
        time.monotonic() - started,
    )
    return written


class _Writer:
    """Collects minibatches, writes them as Arrow batches of about `BATCH_BYTES`, and counts."""

    def __init__(self, folder: Path, one_file: bool) -> None:
        self._folder, self._one_file = folder, one_file
        self._pending: list[dict[str, Array]] = []
        self._bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._num_files, self._in_file = 0, 0
        self._first: Batch | None = None
        self._form: dict[str, Any] = {}
        self._size, self._last, self._uneven = 0, 0, False
        self.num_batches, self._num_rows = 0, 0

    def add(self, batch: Batch) -> None:
        arrays = {name: np.asarray(array) for name, array in named_parts(batch)[0].items()}
        form = {name: array.shape[1:] if array.ndim > 2 else array.ndim for name, array in arrays.items()}
        rows = len(next(iter(arrays.values())))
        if self._first is None:
            self._first, self._form, self._size = batch, form, rows
        if form != self._form:
            raise ValueError(
                "Expected minibatches of one structure, with rows of one shape. Received: "
                f"{self._form} in the first, {form} in minibatch {self.num_batches}"
            )
        # Only the last minibatch may have another size: workers cut the rows into minibatches of one size.
        self._uneven |= self.num_batches > 0 and self._last != self._size
        self._last = rows
        if self._pending and _differ(self._pending[-1], arrays):
            self._flush()
        self._pending.append(arrays)
        self._bytes += sum(array.nbytes for array in arrays.values())
        self.num_batches, self._num_rows = self.num_batches + 1, self._num_rows + rows
        if self._bytes >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0])
        table = ArrayTable({name: np.concatenate([part[name] for part in self._pending]) for name in names})
        for rows in table.read(0, table.num_rows):
            self._write(rows.rename_columns([f"c{index}" for index in range(len(names))]))
        self._pending, self._bytes = [], 0
        free = shutil.disk_usage(self._folder).free
        if free < 4 * BATCH_BYTES:
            raise ValueError(
                "Expected room for the rows of the dataset, which are written to files before the training. "
                f"Received: {free / 1e6:.0f} MB free in {self._folder}"
            )

    def _write(self, rows: pa.RecordBatch) -> None:
        if self._file is None:
            path = self._folder / f"{self._num_files:05}.parquet"
            self._num_files, self._in_file = self._num_files + 1, 0
            # Plain values: compression does not pay off for data that is read once an epoch at most.
            self._file = pq.ParquetWriter(
                path, rows.schema, compression="none", use_dictionary=False, store_schema=False
            )
        self._file.write_batch(rows.cast(self._file.schema))
        self._in_file += rows.nbytes
        if self._in_file >= LARGEST_FILE and not self._one_file:
            self._file.close()
            self._file = None

    def close(self) -> Written:
        self._flush()
        if self._file is not None:
            self._file.close()
        if self._first is None:
            raise ValueError("Expected at least one minibatch. Received: a dataset without any")
        if self._uneven:
            logger.warning(
                "The dataset's minibatches differ in size: the workers cut its rows into minibatches of %d.",
                self._size,
            )
        arrays, roles = named_parts(self._first)
        shapes = {name: form for name, form in self._form.items() if isinstance(form, tuple)}
        return Written(
            self._folder,
            tuple(arrays),
            replace(roles, shapes=shapes),
            self._num_rows,
            self.num_batches,
            self._size,
            self._first,
            sum(path.stat().st_size for path in self._folder.iterdir()),
        )


def _differ(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    """Whether arrays of two minibatches cannot be put together: sequences of different lengths."""
    return any(array.shape[1:] != one[name].shape[1:] for name, array in other.items())
