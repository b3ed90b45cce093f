"""The folder in which JAX keeps the compiled code of local sessions from one to the next.

`local_session` names it to the Python workers, and to JAX in the driver: the first weights of a model that
was trained before, and its first step, are then computed by code that is loaded instead of compiled. The
folder holds code that runs, so it belongs to this user alone, and code of a processor with other features is
never found.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import os
import platform
import re
import stat
from pathlib import Path

__all__ = [
    "KEEP_ALL",
    "check_private",
    "features_of_processor",
    "folder_for_compiled_code",
    "jax_keeps_code_right",
    "keep_compiled_here",
    "user_cache",
]

LIMIT = 256 * 2**20
"""Bytes of compiled code that are kept for one kind of processor."""

KEEP_ALL = {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": -1}
"""Options by which JAX keeps every function; in capitals, variables of the environment. A small model takes
as long to compile as to train for an epoch, and a second of compiling to draw its first weights."""

OLDEST_JAX = (0, 6, 2)
"""On CPUs, code that JAX 0.5.0 or 0.6.0 loads from the folder trains wrong, without an error."""

logger = logging.getLogger(__name__)


def user_cache() -> Path:
    """Return the folder of files that distkeras can make again; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distkeras"


def folder_for_compiled_code() -> Path | None:
    """Return the folder, which exists, or None if compiled code is not to be kept there.

    That is the case if JAX_COMPILATION_CACHE_DIR names another folder, if JAX_ENABLE_COMPILATION_CACHE is
    false, if JAX is too old, or if the folder cannot be one that only this user may write. If it holds more
    than `LIMIT` bytes, the oldest files are deleted.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    if os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "").lower() in ("false", "0", "no", "off", "f", "n"):
        return None
    if not jax_keeps_code_right():
        return None
    try:
        folder = user_cache() / "compiled" / features_of_processor()
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)  # With `parents` the mode would be that of the last alone.
            check_private(each)
    except (OSError, RuntimeError) as error:  # pathlib raises RuntimeError if there is no home.
        logger.info("Compiled code is not kept from one session to the next: %s", error)
        return None
    _delete_oldest(folder)
    return folder


def keep_compiled_here(folder: str) -> None:
    """Let JAX in this process keep compiled code in `folder`, unless the user has chosen another one.

    It has no effect if JAX has compiled something before. The environment, which other processes inherit,
    does not change.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in KEEP_ALL.items():
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def jax_keeps_code_right() -> bool:
    """Return whether there is a JAX whose compiled code is right after it was written to a file and read."""
    try:
        version = importlib.metadata.version("jax")
    except importlib.metadata.PackageNotFoundError:
        return False
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return found is not None and tuple(map(int, found.groups())) >= OLDEST_JAX


def features_of_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return a name for the features of this machine's processors: equal where the same code runs.

    Args:
        cpuinfo: the file in which Linux describes the processors.
    """
    told = {platform.machine(), platform.processor()}
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features", "model name", "CPU implementer", "CPU part"):
                told.add(f"{name.strip()}: {value.strip()}")
    return f"{platform.machine()}-{hashlib.sha256(repr(sorted(told)).encode()).hexdigest()[:16]}"


def check_private(folder: Path) -> None:
    """Raise PermissionError unless `folder` is a folder of this user that nobody else may write."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"Expected a folder of this user that nobody else may write. Received: {folder}, of user "
            f"{found.st_uid}, with mode {stat.filemode(found.st_mode)}"
        )


def _delete_oldest(folder: Path) -> None:
    """Delete the oldest files until at most `LIMIT` bytes are left."""
    files = []
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # Another session may delete it.
            found = path.lstat()
            files.append((found.st_mtime, found.st_size, path))
    size = sum(each for _, each, _ in files)
    for _, each, path in sorted(files):
        if size <= LIMIT:
            break
        path.unlink(missing_ok=True)
        size -= each
