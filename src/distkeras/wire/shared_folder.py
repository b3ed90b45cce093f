"""A folder that driver and executors both reach, for small files which one writes and another reads."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distkeras.wire.lease import files
from distkeras.wire.redaction import Redaction, secrets_in

PART = ".part"
"""In the names of files that are not complete yet."""

LARGEST = 2**20
"""Most bytes of a file, where a caller expects no other number."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder on a filesystem of fsspec. It can be pickled; each process opens it for itself.

    A file is written under another name and renamed when it is complete, so that no reader sees half of it.

    Attributes:
        address: the folder, such as "s3://bucket/run" or "/mnt/nfs/run".
        storage_options: arguments of fsspec's driver, such as keys.
    """

    address: str
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.hide(self.address)

    @property
    def hide(self) -> Redaction:
        """Hides the secrets of the address."""
        return Redaction(secrets_in(self.address, dict(self.storage_options or {})))

    @property
    def is_local(self) -> bool:
        """Whether it is a path of the system, such as a mounted filesystem."""
        from fsspec.implementations.local import LocalFileSystem

        return isinstance(self.open()[0], LocalFileSystem)

    def under(self, name: str) -> SharedFolder:
        """Return a folder in this one."""
        return SharedFolder(f"{self.address.rstrip('/')}/{name}", self.storage_options)

    @property
    def above(self) -> SharedFolder:
        """The folder that this one is in."""
        return SharedFolder(self.address.rstrip("/").rpartition("/")[0], self.storage_options)

    def open(self) -> tuple[Any, str]:
        """Return the filesystem and the path on it.

        Raises:
            ValueError, ImportError, OSError: fsspec's error for the address.
        """
        from fsspec.core import url_to_fs  # Imported here: it takes a quarter of a second.

        fs, path = url_to_fs(self.address, **(self.storage_options or {}))
        return fs, path.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        """Write a file, in place of an earlier one.

        Raises:
            OSError: it could not be written.
        """
        fs, path = self.open()
        target = f"{path}/{name}"
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        part = f"{target}{PART}-{secrets.token_hex(4)}"
        try:
            with fs.open(part, "wb") as file:
                file.write(data)
            fs.mv(part, target)
        except BaseException:
            with contextlib.suppress(OSError):  # The first error says more.
                fs.rm(part)
            raise

    def read(self, name: str, largest: int = LARGEST) -> bytes | None:
        """Return the contents of a file; `None` if it does not exist.

        Raises:
            ValueError: it has more than `largest` bytes.
            OSError: it could not be read.
        """
        fs, path = self.open()
        target = f"{path}/{name}"
        fs.invalidate_cache(target.rpartition("/")[0])
        try:
            if self.is_local:
                # NFS remembers for half a minute that a file did not exist, but asks anew about a folder that
                # is opened.
                os.scandir(target.rpartition("/")[0]).close()
            with fs.open(target, "rb") as file:
                data: bytes = file.read(largest + 1)
        except FileNotFoundError:
            return None
        if len(data) > largest:
            raise ValueError(f"Expected at most {largest} bytes in {self.hide(target)}. Received: more")
        return data

    def names(self) -> list[str]:
        """Return the names of the complete files and folders in this folder."""
        fs, path = self.open()
        fs.invalidate_cache(path)
        found = (name.rstrip("/").rpartition("/")[2] for name in files(fs, path))
        return sorted(name for name in found if PART not in name)

    def remove(self, name: str = "") -> None:
        """Remove a file, or a folder with all that is in it, if it exists."""
        fs, path = self.open()
        with contextlib.suppress(FileNotFoundError):
            fs.rm(f"{path}/{name}".rstrip("/"), recursive=True)

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it; an object store has no empty folders."""
        if self.is_local:
            with contextlib.suppress(OSError):  # Others have written there, or removed it, at this moment.
                self.open()[0].rmdir(self.open()[1])
