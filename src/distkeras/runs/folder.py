"""A folder of a run, on any filesystem of fsspec or of Spark's Hadoop."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distkeras.wire.lease import files
from distkeras.wire.redaction import Redaction, secrets_in

PART = ".part"
"""In the names of files that are not complete yet."""
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")


class RunError(ValueError):
    """An address holds no run, a run that may not be written to, or a run of a later release."""


def find_filesystem(address: str, storage_options: Mapping[str, Any] | None = None) -> tuple[Any, str]:
    """Return the filesystem of `address`, and the path on it.

    It is fsspec's, if fsspec has a driver that works here. Otherwise it is Hadoop's, through the JVM of this
    process's Spark session: HDFS needs no other software on the driver's machine.

    Raises:
        ValueError: neither has a driver.
    """
    # Imported here: importing fsspec takes a quarter of a second.
    from fsspec.core import url_to_fs

    scheme = _SCHEME.match(address)
    try:
        if scheme is not None and "://" not in address:  # fsspec takes "dbfs:/run" for a local folder.
            raise ValueError(f"Protocol not known: {scheme[1]}")
        fs, path = url_to_fs(address, **(storage_options or {}))
        return fs, path
    except (ImportError, ValueError, OSError, TypeError) as error:
        from distkeras.runs.hadoop import hadoop_of

        hide = hiding(address, storage_options)
        fs = hadoop_of(scheme[1]) if scheme is not None else None
        if isinstance(fs, str) or fs is None:
            raise ValueError(
                "Expected an address that fsspec, or Spark's Hadoop in this process, can open. "
                f"fsspec: {hide(str(error))}. Hadoop: {fs or 'the address has no scheme'}. "
                f"Received: address={hide(address)!r}"
            ) from (error if hide(str(error)) == str(error) else None)
        return fs, address.rstrip("/")


def hiding(address: str, storage_options: Mapping[str, Any] | None) -> Redaction:
    """Return what hides the secrets of an address and of its storage options."""
    return Redaction(secrets_in(address, storage_options))


class Folder:
    """The files of one folder. Each is written under another name, and renamed when it is complete.

    Args:
        fs: an fsspec filesystem.
        path: the folder on it.

    Attributes:
        appends: whether a file can be appended to, as on a local disk; object stores and HDFS get a new file.
        is_shared: whether another process of this machine opens the address too: not `memory://`, and not
            by Spark's Hadoop.
    """

    def __init__(self, fs: Any, path: str) -> None:
        from fsspec.implementations.local import LocalFileSystem

        self.fs = fs
        self.path = path.rstrip("/") or "/"
        self.appends = isinstance(fs, LocalFileSystem)
        self.is_shared = getattr(fs, "protocol", None) not in ("hadoop", "memory")

    def of(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return f"{self.path}/{name}"

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the complete files in a subfolder."""
        path = self.of(folder) if folder else self.path
        self.fs.invalidate_cache(path)
        found = (name.rstrip("/").rpartition("/")[2] for name in files(self.fs, path))
        return sorted(name for name in found if PART not in name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        folder, _, last = name.rpartition("/")
        return last in self.names(folder)

    def read(self, name: str) -> bytes:
        """Return the contents of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.fs.open(self.of(name), "rb") as file:
            data: bytes = file.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of an earlier one."""
        with self.writing(name) as path:
            path.write_bytes(data)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self.of(name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a local path to write to; the file gets its name at the end of the `with` block.

        After an exception in the block nothing has changed.
        """
        target = self.of(name)
        folder, _, last = target.rpartition("/")
        self.fs.makedirs(folder, exist_ok=True)
        part = f"{folder}/{Path(last).stem}{PART}{Path(last).suffix}"  # Keras looks at the suffix.
        if self.appends:
            try:
                yield Path(part)
                _to_disk(part)
                os.replace(part, target)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
            return
        with tempfile.TemporaryDirectory(prefix="distkeras-") as local:
            path = Path(local) / last
            yield path
            self.fs.put_file(str(path), part)
            self.fs.mv(part, target)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """Yield a local path with the contents of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        if self.appends:
            if not os.path.exists(self.of(name)):
                raise FileNotFoundError(self.of(name))
            yield Path(self.of(name))
            return
        with tempfile.TemporaryDirectory(prefix="distkeras-") as local:
            path = Path(local) / name.rpartition("/")[2]
            with self.fs.open(self.of(name), "rb") as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 2**20)
            yield path


def _to_disk(path: str) -> None:
    """Make the system write a file to disk, so that it survives a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
