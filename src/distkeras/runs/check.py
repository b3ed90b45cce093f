"""Try whether a run directory can be written, without leaving anything there."""

from __future__ import annotations

import os
import secrets

from distkeras.runs.folder import find_filesystem, hiding
from distkeras.runs.options import RunOptions


def why_not_writable(run: str | os.PathLike[str] | RunOptions) -> str | None:
    """Return why this process cannot write into a run directory; `None` if it can.

    Args:
        run: its address or options. A folder that does not exist is created, and removed again.
    """
    options = run if isinstance(run, RunOptions) else RunOptions(os.fspath(run))
    try:
        fs, path = find_filesystem(options.address, options.storage_options)
        missing = not fs.exists(path)
        fs.makedirs(path, exist_ok=True)
        tried = f"{path.rstrip('/')}/tried-{secrets.token_hex(4)}"
        fs.pipe_file(tried, b"distkeras")
        fs.rm_file(tried)
        if missing:
            fs.rmdir(path)
    except Exception as error:
        # Filesystems raise errors of their own libraries, and every one means the same.
        return not_writable(options, error)
    return None


def not_writable(options: RunOptions, error: Exception) -> str:
    """Return what to say where `error` came of writing into a run directory."""
    hide = hiding(options.address, options.storage_options)
    return (
        f"Expected a folder that this process can write to: {hide(options.address)}. Received: "
        f"{type(error).__name__}: {hide(str(error))}. Allow this user to write there, or use another address."
    )
