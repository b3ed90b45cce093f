"""A project as one archive: what `distkeras submit` sends, and how the other side unpacks it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

MAX_BYTES = 64 * 1024 * 1024
"""Default limit of the sum of a project's files, in bytes."""
MAX_FILES = 10_000
LARGEST = 5
"""Files that an error about the size names."""

_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # The same files give the same archive.
_NOT_PACKED = {"__pycache__", "node_modules"}
_MARKS = ("pyvenv.cfg", "run.json")
"""Files that mark a folder as a virtual environment or a run, which nobody wants to send."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    IndexError,
)
"""What `zipfile` raises on bytes that are no archive, or a damaged one; ValueError includes bad names."""


class PackError(ValueError):
    """A project cannot be packed, lacks its entry, or an archive is not one that `pack` makes."""


@dataclass(frozen=True)
class Pack:
    """An archive of a project.

    Attributes:
        path: the archive, a zip.
        sha256: hash of the archive, in hexadecimal digits.
        num_bytes: size of the archive.
        files: names of its files, relative to the project, with "/" between folders.
    """

    path: Path
    sha256: str
    num_bytes: int
    files: tuple[str, ...]


def pack(folder: Path, *, max_bytes: int = MAX_BYTES, into: Path | None = None) -> Pack:
    """Write the archive of a project.

    In a Git repository, the files are those that Git tracks, as they are now. Elsewhere they are all files
    but hidden ones, caches, virtual environments and runs.

    Args:
        folder: folder of the project.
        max_bytes: limit of the sum of the files, in bytes.
        into: folder for the archive. Default: a new temporary one.

    Raises:
        PackError: there are no files, too many, or too large ones; or a link leads out of the project.
    """
    folder = folder.resolve()
    names = tracked_files(folder)
    if names is None:
        names = sorted(_all_files(folder))
    sources = {name: _source(folder, name) for name in names}
    _check_size(folder, sources, max_bytes)
    if into is None:
        into = Path(tempfile.mkdtemp(prefix="distkeras-pack-"))
    archive = into / "project.zip"
    with zipfile.ZipFile(archive, "w") as written:
        for name, path in sources.items():
            info = zipfile.ZipInfo(name, _FIXED_DATE)
            executable = os.access(path, os.X_OK)
            info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
            info.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
            written.writestr(info, path.read_bytes(), compresslevel=6)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Pack(archive, digest, archive.stat().st_size, tuple(sources))


def tracked_files(folder: Path) -> list[str] | None:
    """Return the files below `folder` that Git tracks and that exist; `None` outside a repository.

    Raises:
        PackError: Git cannot tell, or tracks no file there.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--recurse-submodules"]
    try:
        listed = subprocess.run(command, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    except FileNotFoundError:
        return None
    if listed.returncode:
        said = listed.stderr.decode(errors="replace").strip()
        if "not a git repository" in said:
            return None
        raise PackError(f"Git cannot list the files of {folder}: {said}")
    names = sorted(set(os.fsdecode(listed.stdout).split("\0")) - {""})
    present = [name for name in names if (folder / name).exists()]
    if not present:
        raise PackError(
            f"Expected files that Git tracks: only these are sent. Add them with `git add`. "
            f"Received: none in {folder}"
        )
    return present


def _all_files(folder: Path) -> Iterator[str]:
    for found, folders, files in os.walk(folder):
        at = Path(found)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_PACKED
            and not any((at / name / mark).exists() for mark in _MARKS)
        ]
        for name in files:
            if not name.startswith(".") and not name.endswith(".pyc"):
                yield (at / name).relative_to(folder).as_posix()


def _source(folder: Path, name: str) -> Path:
    """Return the file behind `name`; a link is packed as what it leads to."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder) or not path.is_file():
        raise PackError(f"Expected files of the project {folder}. Received: {name}, which leads to {path}")
    return path


def _check_size(folder: Path, sources: dict[str, Path], max_bytes: int) -> None:
    if not sources:
        raise PackError(f"Expected a project with files. Received: none in {folder}")
    if len(sources) > MAX_FILES:
        raise PackError(f"Expected at most {MAX_FILES} files in a project. Received: {len(sources)}")
    sizes = {name: path.stat().st_size for name, path in sources.items()}
    if (total := sum(sizes.values())) > max_bytes:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
        named = ", ".join(f"{name} ({sizes[name]:,} bytes)" for name in largest)
        raise PackError(
            f"Expected a project of at most {max_bytes:,} bytes. Keep data where the cluster reads it, or "
            f"raise the limit with --max-bytes. Received: {total:,} bytes; the largest files: {named}"
        )


def unpack(archive: Path, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack an archive that may come from anyone. Nothing outside `folder` is written.

    Args:
        archive: the zip.
        folder: where the files go: a new folder, or an empty one.
        max_bytes: limit of the sum of the unpacked files, in bytes.

    Raises:
        PackError: it is not a zip; it is damaged, too large or encrypted; or it has a link, or a name that
            is absolute, leads out of the folder, or is there twice. Files may have been written by then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise PackError(f"Expected an empty folder to unpack into. Received: {folder}")
    try:
        with zipfile.ZipFile(archive) as read:
            left = max_bytes
            for info in _checked(read.infolist(), max_bytes):
                left -= _write(read, info, folder / info.filename, left)
    except PackError:
        raise
    except (*_BROKEN, ValueError, OSError) as error:
        # A damaged archive makes `zipfile` seek to places before its beginning. A full disk is no such error.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise PackError(f"Expected an archive that `distkeras submit` packs. Received: {error}") from error


def _checked(infos: list[zipfile.ZipInfo], max_bytes: int) -> list[zipfile.ZipInfo]:
    """Return the archive's files, whose names, kinds and sizes are as they must be."""
    if len(infos) > MAX_FILES:
        raise PackError(f"Expected at most {MAX_FILES} files in an archive. Received: {len(infos)}")
    if sum(info.file_size for info in infos) > max_bytes:
        raise PackError(f"Expected files of at most {max_bytes:,} bytes in all. Received: more")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise PackError(f"Expected files only, no links. Received: {info.filename!r}")
        if info.flag_bits & 1 or info.compress_type not in _METHODS:
            raise PackError(f"Expected files that are deflated or stored. Received: {info.filename!r}")
        _check_name(info.filename)
    files = [info for info in infos if not info.is_dir()]
    names = [info.filename for info in files]
    above = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if len(set(names)) < len(names) or above & set(names):
        raise PackError(
            "Expected each name once. Received: a name that is there twice, or a file as a folder"
        )
    return files


def _check_name(name: str) -> None:
    parts = name.removesuffix("/").split("/")
    plain = all(part not in ("", ".", "..") and len(os.fsencode(part)) <= 255 for part in parts)
    if not plain or len(os.fsencode(name)) > 1024 or set(name) & {"\\", ":", "\0"}:
        raise PackError(f"Expected names within the project. Received: {name[:80]!r}")


def _write(read: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Write one file, and return its size, which the archive may have told wrongly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_bytes = 0
    with read.open(info) as source, open(path, "xb") as target:
        while block := source.read(1 << 20):
            num_bytes += len(block)
            if num_bytes > left:
                raise PackError("Expected files of the sizes that the archive tells. Received: larger ones")
            target.write(block)
    path.chmod(0o755 if info.external_attr >> 16 & 0o100 else 0o644)
    return num_bytes
