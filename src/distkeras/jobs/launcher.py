"""Runs the entry of a project where the driver is: the script that every engine starts.

    launcher.py ENTRY [ARGUMENTS...]

It is copied to where the driver runs, so it imports nothing of this package before it has found the project:
the folder DISTKERAS_PROJECT, the folder `project` here, or a zip with the entry, beside this script, here or
on the path. The process works in the project's folder.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path


def find_project(entry: str) -> Path:
    """Return the folder of the project with `entry`; a zip is unpacked.

    Raises:
        FileNotFoundError: the project is not here.
    """
    for place in (os.environ.get("DISTKERAS_PROJECT"), "project"):
        if place and (Path(place) / entry).is_file():
            return Path(place).resolve()
    for archive in _archives():
        if zipfile.is_zipfile(archive) and entry in zipfile.ZipFile(archive).namelist():
            from distkeras.jobs.pack import MAX_BYTES, unpack

            folder = Path(tempfile.mkdtemp(prefix="distkeras-project-"))
            unpack(archive, folder, max_bytes=max(MAX_BYTES, 100 * archive.stat().st_size))
            return folder
    raise FileNotFoundError(
        f"Expected the project with {entry} beside the driver: in DISTKERAS_PROJECT, in ./project, or as "
        f"a zip on the path. Received: {os.getcwd()}, {sys.path}"
    )


def _archives() -> Iterator[Path]:
    yield from sorted(Path(__file__).parent.glob("*.zip"))
    yield from sorted(Path.cwd().glob("*.zip"))
    yield from (Path(place) for place in sys.path if place.endswith(".zip") and Path(place).is_file())


def main(arguments: Sequence[str]) -> None:
    """Run an entry: a script as `python ENTRY` would, a job file as `distkeras train ENTRY`."""
    entry, *rest = arguments
    if pid_file := os.environ.get("DISTKERAS_PID_FILE"):
        Path(pid_file).write_text(str(os.getpid()))
    project = find_project(entry)
    os.chdir(project)
    sys.path[0] = str(project)  # As for a script that lies there.
    if entry.endswith(".toml"):
        sys.argv = ["distkeras", "train", entry, *rest]
        runpy.run_module("distkeras", run_name="__main__")
    else:
        sys.argv = [entry, *rest]
        runpy.run_path(entry, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
