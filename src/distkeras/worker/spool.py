"""A partition's rows on the worker's local disk; later epochs are read from it."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from distkeras.worker.decode import Table
from distkeras.worker.ragged import Ragged

RESERVE_BYTES = 256 * 2**20
"""Free disk space that a spool leaves to other users of the machine."""


Piece = tuple[str, int]
"""Key of a file: the rows of a column, or, for rows of any length, the index of one of their buffers."""


class SpoolFullError(OSError):
    """The worker's local disk has no space for its share of the rows."""


class Spool:
    """Stores appended rows, and then maps each column to memory as one array.

    The files have no name: however the process ends, the system frees their space. They use only memory of
    the system's page cache, which is reclaimed when other processes need it.

    Args:
        directory: on a local disk; default: the one of Spark's local directories with the most free space,
            or the system's temporary directory.
        num_rows: total number of rows to append: the first append checks the space for all. `None` if
            unknown.

    Raises:
        SpoolFullError: an append, or the rows to come, would leave less than `RESERVE_BYTES` free.
    """

    def __init__(self, directory: str | None = None, num_rows: int | None = None) -> None:
        self.directory = directory or spool_directory()
        self._files: dict[Piece, IO[bytes]] = {}
        self._forms: dict[str, tuple[np.dtype[Any], int] | pa.DataType] = {}
        self._free = 0
        self._expected = num_rows
        self.num_rows = 0
        self.num_bytes = 0

    def append(self, table: Table) -> None:
        """Add the rows of `table`, which must have the same columns each time."""
        pieces: list[tuple[Piece, memoryview]] = []
        num_rows = 0
        for name, rows in table.items():
            num_rows = len(rows)
            if isinstance(rows, Ragged):
                self._forms.setdefault(name, rows.array.type)
                buffers = rows.buffers()
            else:
                self._forms.setdefault(name, (rows.dtype, rows.shape[1]))
                texts = rows.dtype.hasobject
                buffers = Ragged(pa.array(rows.ravel(), pa.large_string())).buffers() if texts else [rows]
            pieces += [((name, index), _raw(buffer)) for index, buffer in enumerate(buffers)]
        num_bytes = sum(buffer.nbytes for _, buffer in pieces)
        if self._expected is not None and num_rows:
            # An error now is better than one after hours of the first epoch.
            self._check_room(num_bytes * max(1.0, self._expected / num_rows))
            self._expected = None
        self._claim(num_bytes)
        for piece, buffer in pieces:
            self._file(piece).write(buffer)
        self.num_rows += num_rows

    def read(self) -> Spooled:
        """Return all appended rows, mapped to memory, by column."""
        table: Spooled = {}
        for name, form in self._forms.items():
            maps = [self._map(piece) for piece in self._files if piece[0] == name]
            if isinstance(form, pa.DataType):
                table[name] = Ragged.of_buffers(form, self.num_rows, maps)
                continue
            dtype, width = form
            if dtype.hasobject:
                texts = Ragged.of_buffers(pa.large_string(), self.num_rows * width, maps)
                table[name] = Texts(texts, width)
            else:
                table[name] = np.frombuffer(maps[0], dtype).reshape(self.num_rows, width)
        return table

    def close(self) -> None:
        """Free the disk space. Arrays that are still in use stay readable until they are deleted."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, piece: Piece) -> IO[bytes]:
        if piece not in self._files:
            self._files[piece] = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 (until `close`)
        return self._files[piece]

    def _claim(self, num_bytes: int) -> None:
        """Query the free space again only when the last known amount may be used up."""
        if num_bytes > self._free:
            self._free = min(self._check_room(num_bytes), RESERVE_BYTES // 4 + num_bytes)
        self._free -= num_bytes
        self.num_bytes += num_bytes

    def _check_room(self, num_bytes: float) -> int:
        """Return the usable free bytes; raise if `num_bytes` is more."""
        free = shutil.disk_usage(self.directory).free - RESERVE_BYTES
        if num_bytes > free:
            raise SpoolFullError(
                f"No room to spool this worker's rows: {self.directory} has "
                f"{(free + RESERVE_BYTES) // 2**20} MiB free after {self.num_bytes // 2**20} MiB of "
                f"rows. {math.ceil(num_bytes / 2**20)} MiB are to come, and {RESERVE_BYTES // 2**20} MiB "
                "must stay free. Point SPARK_LOCAL_DIRS to a larger disk, use more workers, or train for one "
                "epoch (which spools nothing)."
            )
        return free

    def _map(self, piece: Piece) -> mmap.mmap | bytes:
        file = self._files[piece]
        file.flush()
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # mmap rejects an empty file
        # A private copy-on-write map: arrays are writable (else PyTorch warns), and never change the file.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


class Texts:
    """Rows with a fixed number of strings, indexed by row like a NumPy array."""

    def __init__(self, texts: Ragged, width: int) -> None:
        self._texts = texts
        self._width = width

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        if isinstance(rows, slice):
            first, end, _ = rows.indices(len(self._texts) // self._width)
            texts = self._texts[first * self._width : end * self._width]
        else:
            texts = self._texts[(rows[:, None] * self._width + np.arange(self._width)).ravel()]
        return texts.objects().reshape(-1, self._width)


Spooled = dict[str, npt.NDArray[Any] | Texts | Ragged]
"""All rows of a partition, mapped to memory, by column."""


def spool_directory() -> str:
    """Return Spark's local directory with the most free space, else the temporary directory."""
    listed = os.environ.get("LOCAL_DIRS") or os.environ.get("SPARK_LOCAL_DIRS") or ""
    usable = [path for path in listed.split(",") if path and os.access(path, os.W_OK)]
    return max(usable, key=lambda path: shutil.disk_usage(path).free, default=tempfile.gettempdir())


def _raw(rows: npt.NDArray[Any]) -> memoryview:
    flat: Any = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    return memoryview(flat)
