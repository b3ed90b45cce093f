"""The log of a job: written within a limit by its runner, read in pieces by the server."""

from __future__ import annotations

import codecs
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

TAIL = 64 * 1024
"""Bytes of the end that are kept of a log beyond its limit: the error that ended the job is there."""
PIECE = 256 * 1024
"""Most bytes of one piece."""


class Source(Protocol):
    """Where a log comes from: a pipe."""

    def read(self, size: int, /) -> bytes | None:
        """Return what has come, at most `size` bytes; nothing at the end."""


class LogWriter:
    """Writes a log: its first `limit` bytes as they come, and its last `TAIL` when it ends.

    Args:
        path: the file.
        limit: bytes.

    Attributes:
        trouble: why the rest was not written, such as a full disk; "" if all is well.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._file: BinaryIO = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._left = max(0, limit - self._file.tell())
        self._lock = threading.Lock()  # The copying thread may be left behind at the end.
        self._skipped, self._tail = 0, b""
        self.trouble = ""

    def copy(self, source: Source) -> None:
        """Write all that comes from a pipe. It is emptied in any case: else the job would stand still."""
        while data := source.read(65536):
            with self._lock:
                self._take(data)

    def _take(self, data: bytes) -> None:
        now, later = data[: self._left], data[self._left :]
        if now:
            self._left -= len(now)
            self._write(now)
        self._skipped += max(0, len(self._tail) + len(later) - TAIL)
        self._tail = (self._tail + later)[-TAIL:]

    def _write(self, data: bytes) -> None:
        if self._file.closed or self.trouble:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self.trouble = f"The log could not be written on: {error}"

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._lock:
            if self._skipped:
                self._write(b"\n[distkeras: %d bytes are left out here]\n" % self._skipped)
            self._write(self._tail)
            self._file.close()


@dataclass(frozen=True)
class Piece:
    """A piece of a log.

    Attributes:
        start: its offset, in bytes.
        end: the offset of what comes after it.
        text: the piece.
    """

    start: int
    end: int
    text: str


def read_piece(path: Path, offset: int, *, is_whole: bool, most: int = PIECE) -> Piece:
    """Return the text of a log from an offset.

    A letter of several bytes is never cut, so the pieces joined are the log.

    Args:
        path: the file; it may not be there yet.
        offset: in bytes.
        is_whole: whether nothing more will be written.
        most: bytes of the piece.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            offset = min(offset, size)
            file.seek(offset)
            data = file.read(most)
    except FileNotFoundError:
        return Piece(0, 0, "")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, is_whole and offset + len(data) >= size)
    cut, _ = decoder.getstate()
    return Piece(offset, offset + len(data) - len(cut), text)
