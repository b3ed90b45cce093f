"""Send a large object to the workers: pickled into files that they read from their own disk."""

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
"""Maximum size of a file, below any 2 GB limit on the way."""

SMALL_BYTES = 64 * 2**10
"""Maximum size of an object that travels with the task instead of in a file."""


class PayloadLost(RuntimeError):
    """A file of a payload is missing or incomplete where Spark should have put it."""


class Openable(Protocol):
    """An object that a task opens, with a name for its contents."""

    @property
    def name(self) -> str: ...

    def open(self) -> Any: ...


@dataclass(frozen=True)
class Payload:
    """A pickled object: the location of its bytes, or the bytes themselves if they are few.

    Attributes:
        name: digest of the contents: the same bytes have the same name.
        files: names of the files that hold the bytes, in their order.
        size: total bytes of the files.
        small: the bytes themselves, if there are no files.
        folder: folder of the files; `None` for the folder of an executor's files.
    """

    name: str
    files: tuple[str, ...] = ()
    size: int = 0
    small: bytes = b""
    folder: str | None = None

    def open(self) -> Any:
        """Return the object, newly unpickled.

        Bytes are read directly to their final memory, without a second copy.

        Raises:
            PayloadLost: a file is missing or incomplete.
        """
        if not self.files:
            return pickle.loads(self.small)
        paths = [Path(self.folder or "", name) for name in self.files]
        found = sum(path.stat().st_size if path.exists() else 0 for path in paths)
        if found != self.size:
            raise PayloadLost(
                f"Expected {self.size} bytes in {len(paths)} file(s) that Spark brings to each executor. "
                f"Received: {found} bytes in {self.folder}. Keep these files while the application runs."
            )
        with io.BufferedReader(_ChunkReader(paths)) as file:
            return pickle.load(file)


def pack(value: object, folder: str | os.PathLike[str]) -> Payload:
    """Pickle `value` and return its location: files in `folder`, if it is large.

    The pickler writes directly to the files: `bytes` and arrays are not copied.

    Args:
        value: any object that cloudpickle can pickle.
        folder: an existing folder. Existing files of the same contents are kept.

    Raises:
        OSError: the files could not be written; incomplete files are deleted.
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
    """A file that only computes a name from the written bytes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    @property
    def name(self) -> str:
        return f"distkeras-{self._hash.hexdigest()[:32]}"

    def write(self, data: bytes | memoryview | pickle.PickleBuffer) -> int:
        self._hash.update(data)
        return memoryview(data).nbytes


class _ChunkWriter:
    """A file that keeps few bytes in memory, and writes more to files of at most `CHUNK_BYTES`."""

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
        """Rename the complete files to their final names."""
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
        for file in self._files:  # `finish` was not reached.
            file.close()
            Path(file.name).unlink()


class _ChunkReader(io.RawIOBase):
    """A file of the concatenated bytes of several files."""

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
