"""A large object on its way to the workers: pickled into files, which they read from their own disk."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import cloudpickle

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 256 * 2**20
"""A file holds so many bytes at most, so that no limit of 2 GB along the way is met."""

SMALL_BYTES = 64 * 2**10
"""What is smaller needs no file: it travels beside the code."""


class PayloadLost(RuntimeError):
    """A file of a payload is not where Spark puts it, or is not whole."""


class Openable(Protocol):
    """What a task opens: an object, by a name for its contents."""

    @property
    def name(self) -> str: ...

    def open(self) -> Any: ...


@dataclass(frozen=True)
class Payload:
    """A pickled object: where its bytes are, not the bytes themselves unless they are few.

    Attributes:
        name: of the contents: the same bytes have the same name.
        files: names of the files that hold the bytes, in their order.
        size: bytes in all of them.
        small: the bytes themselves, where there are no files.
        folder: where the files lie; `None`: where Spark puts an executor's files.
    """

    name: str
    files: tuple[str, ...] = ()
    size: int = 0
    small: bytes = b""
    folder: str | None = None

    def open(self) -> Any:
        """Return the object, newly unpickled.

        Memory is taken once: bytes are read to where they stay.

        Raises:
            PayloadLost: a file is not there, or not whole.
        """
        if not self.files:
            return pickle.loads(self.small)
        paths = [Path(self.folder or "", name) for name in self.files]
        found = sum(path.stat().st_size if path.exists() else 0 for path in paths)
        if found != self.size:
            raise PayloadLost(
                f"Expected {self.size} bytes in {len(paths)} file(s) that Spark brings to each executor. "
                f"Received: {found} bytes in {self.folder}. They must stay while the application runs."
            )
        with io.BufferedReader(_ChunkReader(paths)) as file:
            return pickle.load(file)


def pack(value: object, folder: str | os.PathLike[str]) -> Payload:
    """Pickle `value` and return where it is: in `folder`, if it is large.

    The bytes go to the files as they are pickled: `bytes` and arrays are not copied.

    Args:
        value: anything that cloudpickle takes.
        folder: an existing folder. Files of the same contents that are there already stay as they are.

    Raises:
        OSError: the files could not be written; none is left.
    """
    with _ChunkWriter(Path(folder)) as pieces:
        cloudpickle.dump(value, pieces, protocol=5)
        return pieces.finish()


def name_of(value: object) -> str:
    """Return the name that `pack` would give to `value`."""
    digest = _Digest()
    cloudpickle.dump(value, digest, protocol=5)
    return digest.name


class _Digest:
    """What is written to it has a name."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def name(self) -> str:
        return f"distkeras-{self._hash.hexdigest()[:32]}"

    def write(self, data: bytes | memoryview | pickle.PickleBuffer) -> int:
        self._hash.update(data)
        return memoryview(data).nbytes


class _ChunkWriter:
    """What is written to it: kept in memory while it is small, else in files of at most `CHUNK_BYTES`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._part = f"distkeras-{os.urandom(8).hex()}.part"
        self._digest = _Digest()
        self._size = 0
        self._small = bytearray()
        self._files: list[BinaryIO] = []

    def write(self, data: bytes | pickle.PickleBuffer) -> int:
        view = memoryview(data).cast("B")
        self._digest.write(view)
        self._size += len(view)
        if self._size <= SMALL_BYTES:
            self._small += view
            return len(view)
        if not self._files:
            self._to_files(memoryview(bytes(self._small)))
        self._to_files(view)
        return len(view)

    def _to_files(self, view: memoryview) -> None:
        while view or not self._files:
            if not self._files or self._files[-1].tell() == CHUNK_BYTES:
                self._files.append(open(self._folder / f"{self._part}{len(self._files)}", "wb"))  # noqa: SIM115
            room = CHUNK_BYTES - self._files[-1].tell()
            self._files[-1].write(view[:room])
            view = view[room:]

    def finish(self) -> Payload:
        """Give the files their names, which they have once they are whole."""
        name = self._digest.name
        if not self._files:
            return Payload(name, small=bytes(self._small))
        files = tuple(f"{name}-{index}" for index in range(len(self._files)))
        for file, final in zip(self._files, files, strict=True):
            file.close()
            Path(file.name).replace(self._folder / final)
        self._files.clear()
        return Payload(name, files, self._size, folder=str(self._folder))

    def __enter__(self) -> _ChunkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:  # Not finished.
            file.close()
            Path(file.name).unlink()


class _ChunkReader(io.RawIOBase):
    """The bytes of files, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = iter(paths)
        self._file: io.FileIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while True:
            count = self._file.readinto(buffer) if self._file is not None else 0
            if count:
                return count
            self._close_file()
            path = next(self._paths, None)
            if path is None:
                return 0
            self._file = io.FileIO(path)

    def close(self) -> None:
        self._close_file()
        super().close()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
