"""A partition's rows on the worker's local disk, from which later epochs are read."""

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
"""Free disk space that a spool leaves to the others on the machine."""


Piece = tuple[str, int]
"""What one file holds: the rows of a column, or, of rows of any length, one of their buffers."""


class SpoolFullError(OSError):
    """The worker's local disk has no room for its share of the rows."""


class Spool:
    """Appends rows; then maps them to memory, column by column, as one array each.

    Its files have no name: whenever the process ends, and however, the system frees their space.
    Memory in use is the system's page cache, which gives way when others need it.

    Args:
        directory: on a local disk; default: the one of Spark's local directories with the most room, or the
            system's temporary directory.
        num_rows: that will be appended in all: room for all is looked for at the first. `None`: unknown.

    Raises:
        SpoolFullError: an append would leave less than `RESERVE_BYTES` free, or the rows to come would.
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
        """Add the rows of `table`, whose columns must be the same each time."""
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
            # Better an error now than after hours of the first epoch.
            self._check_room(num_bytes * max(1.0, self._expected / num_rows))
            self._expected = None
        self._claim(num_bytes)
        for piece, buffer in pieces:
            self._file(piece).write(buffer)
        self.num_rows += num_rows

    def read(self) -> Spooled:
        """Return every row appended so far, mapped, by column."""
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
        """Free the disk space. Rows that are still in use stay readable until they are dropped."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, piece: Piece) -> IO[bytes]:
        if piece not in self._files:
            self._files[piece] = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 (until `close`)
        return self._files[piece]

    def _claim(self, num_bytes: int) -> None:
        """Ask the disk anew only when what was free at the last look may be used up by now."""
        if num_bytes > self._free:
            self._free = min(self._check_room(num_bytes), RESERVE_BYTES // 4 + num_bytes)
        self._free -= num_bytes
        self.num_bytes += num_bytes

    def _check_room(self, num_bytes: float) -> int:
        """Return the free bytes that may be used, or raise where `num_bytes` are more."""
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
            return b""  # mmap refuses an empty file
        # A private copy-on-write map: writable arrays (PyTorch warns of others) that never change the file.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


class Texts:
    """As many strings a row, indexed by row like a NumPy array."""

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
"""Every row of a partition, mapped, by column."""


def spool_directory() -> str:
    """Return the one of Spark's local directories with the most free space, else the temporary directory."""
    listed = os.environ.get("LOCAL_DIRS") or os.environ.get("SPARK_LOCAL_DIRS") or ""
    usable = [path for path in listed.split(",") if path and os.access(path, os.W_OK)]
    return max(usable, key=lambda path: shutil.disk_usage(path).free, default=tempfile.gettempdir())


def _raw(rows: npt.NDArray[Any]) -> memoryview:
    flat: Any = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    return memoryview(flat)
