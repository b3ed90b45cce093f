"""Snapshots on a filesystem that only this process reaches: copies of what the servers write locally."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from distkeras.runs.folder import PART, Folder

logger = logging.getLogger(__name__)


class SnapshotMirror:
    """The local copies of a run's snapshots, for parameter servers, which have no Hadoop of their own.

    The server writes to `local`. After each of its snapshots a thread copies what is new to the run, and
    removes there what the server has removed. A killed driver loses the copy that was under way: a resumed
    training goes on from the one before.

    Args:
        folder: the folder of the run.
        name: name of the folder of snapshots in it.
        check: raises Fenced if another driver has taken the run.
    """

    def __init__(self, folder: Folder, name: str, check: Callable[[], None]) -> None:
        self._folder, self._name, self._check = folder, name, check
        self.local = Path(tempfile.mkdtemp(prefix="distkeras-snapshots-"))
        self._copied: set[str] = set()
        for each in remote_snapshots(folder, name):
            download(folder, f"{name}/{each}", self.local / each)
            self._copied.add(each)
        self._due = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="distkeras-mirror", daemon=True)
        self._thread.start()

    def copy_soon(self) -> None:
        """Let the thread copy what is new."""
        self._due.set()

    def close(self) -> None:
        """Copy what is new, such as the last snapshot of a server that has ended, and remove the local files.

        Raises:
            Fenced: another driver has taken the run.
            OSError: the run cannot be written to.
        """
        self._closing = True
        self._due.set()
        self._thread.join()
        try:
            self._copy()
        finally:
            shutil.rmtree(self.local, ignore_errors=True)

    def clear(self) -> None:
        """Remove all snapshots."""
        for name in snapshots_in(self.local):
            (self.local / name).unlink()
        self._copy()

    def _run(self) -> None:
        while True:
            self._due.wait()
            self._due.clear()
            if self._closing:
                return
            try:
                self._copy()
            except Exception as error:  # The next copy is tried when it is due; the last one raises.
                logger.warning("A snapshot could not be copied to the run: %s", error)

    def _copy(self) -> None:
        self._check()
        here = snapshots_in(self.local)
        for name in here:
            if name not in self._copied:
                try:
                    with self._folder.writing(f"{self._name}/{name}") as path:
                        shutil.copyfile(self.local / name, path)
                except FileNotFoundError:
                    if (self.local / name).exists():
                        raise
                    continue  # The server has removed it meanwhile, because it is old.
                self._copied.add(name)
        for name in self._copied - {*here}:
            self._folder.remove(f"{self._name}/{name}")
        self._copied &= {*here}


def snapshots_in(local: Path) -> list[str]:
    """Return the names of the complete snapshots in a local folder, and in those of further servers."""
    return sorted(str(path.relative_to(local)) for path in local.rglob("*.npz") if PART not in path.name)


def remote_snapshots(folder: Folder, name: str) -> Iterator[str]:
    """Yield the names of the snapshots in a run, as `snapshots_in` does."""
    for each in folder.names(name):
        if each.endswith(".npz"):
            yield each
        elif "." not in each:
            yield from (
                f"{each}/{own}" for own in folder.names(f"{name}/{each}".lstrip("/")) if own.endswith(".npz")
            )


def download(folder: Folder, name: str, local: Path) -> None:
    """Copy a file of a run to a local path."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with folder.reading(name) as path:
        shutil.copyfile(path, local)
