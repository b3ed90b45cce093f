"""The folder of a job server: its jobs, its queue, its token. One server at a time has it."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from pathlib import Path

from distkeras.jobs.profiles import read_token


class HomeError(RuntimeError):
    """The folder of a job server cannot be used."""


def default_home() -> Path:
    """Return the folder that a server takes if none is named."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "distkeras" / "server"


class Home:
    """The folder of a job server, which nobody else may read: projects and logs are there.

    Args:
        path: the folder; it is made if there is none.

    Raises:
        HomeError: another server has it, it belongs to somebody else, or others may look into it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.jobs):
                folder.mkdir(mode=0o700, exist_ok=True)
            _check_private(self.path)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise HomeError(f"Expected a folder of your own for the server. Received: {error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise HomeError(
                "Expected a folder that no other server has: give another one by --folder. "
                f"Received: {self.path}"
            ) from error
        shutil.rmtree(self.incoming, ignore_errors=True)  # Of uploads that were cut off.
        self.incoming.mkdir(mode=0o700)

    @property
    def jobs(self) -> Path:
        """The folders of the jobs."""
        return self.path / "jobs"

    @property
    def incoming(self) -> Path:
        """What is not a job yet."""
        return self.path / "incoming"

    @property
    def database(self) -> Path:
        """The file of the queue."""
        return self.path / "jobs.sqlite"

    @property
    def token_file(self) -> Path:
        """The file of the token, unless another one is named."""
        return self.path / "token"

    def new_folder(self) -> Path:
        """Return a new folder below `incoming`, whose name can be the id of a job."""
        path = self.incoming / secrets.token_hex(6)
        path.mkdir(mode=0o700)
        return path

    def new_file(self) -> Path:
        """Return the path of a new file below `incoming`, which is not there yet."""
        return self.incoming / f"{secrets.token_hex(6)}.zip"

    def close(self) -> None:
        """Let another server have the folder."""
        os.close(self._lock)


def _check_private(path: Path) -> None:
    """Check that nobody else can look into a folder. Its mode is not ours to change: it may be shared."""
    found = path.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise HomeError(
            f"Expected a folder that only you can read, or none yet: `chmod 700 {path}`. "
            f"Received: {path}, mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}"
        )


def token_in(path: Path) -> str:
    """Return the token in a file; a file that is not there is made, with a new token, for this user alone.

    Raises:
        ProfileError: others may read the file, or there is no token in it.
        OSError: the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    with open(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    return read_token(path)
