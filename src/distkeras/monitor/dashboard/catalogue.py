"""The runs below some addresses: found by their `run.json`, and summed up for the table of runs."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from distkeras.monitor.dashboard.about import about_run
from distkeras.runs.facts import FACTS
from distkeras.runs.folder import Folder, find_filesystem, hiding
from distkeras.runs.records import FOLDER as EPOCHS

DEPTH = 3
"""Levels of folders below an address that are searched."""
MOST_FOLDERS = 2000
"""Folders that are searched below an address: a person may have named a whole disk."""
EVERY, EVERY_ELSEWHERE = 5.0, 30.0
"""Seconds between two searches: on local disks, and in stores where each folder is a request."""


@dataclass
class _Place:
    """An address that was given, and what was found there."""

    shown: str
    fs: Any
    path: str
    must_have: bool = True
    runs: list[str] = field(default_factory=list)
    trouble: str | None = None


class Catalogue:
    """Finds the runs. Its methods may be called by any thread.

    A run is known by its address without secrets; only runs that were found can be asked for.

    Args:
        addresses: runs, or folders of runs, on any filesystem of fsspec.
        storage_options: arguments of fsspec's driver.

    Raises:
        ValueError: an address has no driver.
    """

    def __init__(self, addresses: Sequence[str], storage_options: Mapping[str, Any] | None = None) -> None:
        self._storage_options = storage_options
        self._lock = threading.Lock()
        self._places: list[_Place] = []
        self._ended: dict[str, dict[str, Any]] = {}  # Summaries that change no more.
        self._found: dict[str, str] = {}
        self._searched, self._every = -EVERY_ELSEWHERE, EVERY
        for address in addresses:
            self.add(address)

    def add(self, address: str, *, must_have: bool = True) -> str:
        """Search an address, too; return it without secrets.

        Args:
            address: a run, or a folder of runs.
            must_have: whether `runs` tells what was found there if it is no run.
        """
        fs, path = find_filesystem(address, self._storage_options)
        shown = hiding(address, self._storage_options)(address).rstrip("/")
        with self._lock:
            if all(place.shown != shown for place in self._places):
                self._places.append(_Place(shown, fs, path.rstrip("/") or "/", must_have))
            self._searched = -EVERY_ELSEWHERE
            if not Folder(fs, path).appends:
                self._every = EVERY_ELSEWHERE
        return shown

    def folder(self, name: str) -> Folder | None:
        """Return the folder of a run that was found; `None` if there is none of that name."""
        with self._lock:
            if name not in self._found:
                self._search()
            for place in self._places:
                if name in place.runs:
                    return Folder(place.fs, self._found[name])
        return None

    def runs(self) -> dict[str, Any]:
        """Return what was searched, and a summary of each run that was found there."""
        with self._lock:
            if time.monotonic() - self._searched > self._every:
                self._search()
            rows = [self._summary(place, name) for place in self._places for name in place.runs]
            searched = [
                {"address": place.shown, "trouble": place.trouble}
                for place in self._places
                if place.must_have
            ]
        return {"searched": searched, "runs": rows}

    def _search(self) -> None:
        self._searched = time.monotonic()
        for place in self._places:
            place.trouble, place.runs = None, []
            try:
                for path in self._below(place):
                    name = place.shown + path.removeprefix(place.path)
                    if name not in place.runs:
                        place.runs.append(name)
                        self._found[name] = path
            except (OSError, ValueError) as error:
                place.trouble = f"The folder cannot be read: {error}"
            if not place.runs and place.trouble is None:
                place.trouble = "There is no run here: no run.json in this folder or in those below it."

    def _below(self, place: _Place) -> Iterator[str]:
        """Yield the folders with a run, breadth first; nothing below a run is searched."""
        waiting, searched = deque([(place.path, 0)]), 0
        if not place.fs.exists(place.path):
            raise FileNotFoundError("there is no such folder")
        while waiting:
            path, depth = waiting.popleft()
            searched += 1
            if searched > MOST_FOLDERS:
                place.trouble = f"Only the first {MOST_FOLDERS:,} folders were searched."
                return
            place.fs.invalidate_cache(path)
            try:
                entries = place.fs.ls(path, detail=True)
            except (PermissionError, FileNotFoundError, NotADirectoryError):
                if depth == 0:
                    raise
                continue
            names = {entry["name"].rstrip("/").rpartition("/")[2]: entry for entry in entries}
            if FACTS in names:
                yield path
                continue
            for name in sorted(names) if depth < DEPTH else ():
                if names[name]["type"] == "directory" and not name.startswith("."):
                    waiting.append((f"{path.rstrip('/')}/{name}", depth + 1))

    def _summary(self, place: _Place, name: str) -> dict[str, Any]:
        """Return what the table shows of a run; that of a finished one is read once."""
        folder = Folder(place.fs, self._found[name])
        if name in self._ended and folder.exists("result.json"):
            return self._ended[name]
        about = about_run(folder)
        short = name.removeprefix(place.shown).strip("/") or place.shown.rpartition("/")[2]
        summary: dict[str, Any] = {"id": name, "name": short, "error": about["error"]}
        if about["error"] is None:
            outline = ("status", "rule", "workers", "rows", "epochs", "backend", "simulation", "began")
            summary |= {key: about[key] for key in outline} | _progress(folder, about)
        if summary.get("status") == "finished":
            self._ended[name] = summary
        return summary


def _progress(folder: Folder, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return how far a run has come: by its result, else by the record of its last epoch."""
    result = about["result"]
    if result is not None:
        best = result.get("best") or {}
        return {"done": result.get("epochs"), "best": best, "seconds": result.get("seconds")}
    try:
        names = [name for name in folder.names(EPOCHS) if name.endswith(".json")]
        last = json.loads(folder.read(f"{EPOCHS}/{names[-1]}")) if names else {}
    except (OSError, ValueError):  # A driver that goes on with the run removes records.
        names, last = [], {}
    return {"done": len(names), "best": last.get("logs") or {}, "seconds": None}
