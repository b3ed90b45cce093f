"""Follows one run for all pages that show it: reads what is new, and answers what a page has not seen."""

from __future__ import annotations

import threading
import time
from typing import Any

from distkeras.monitor.dashboard.about import about_run, seconds_of_silence
from distkeras.monitor.dashboard.picture import Picture
from distkeras.runs.control_files import ControlFiles, Request
from distkeras.runs.folder import Folder, RunError
from distkeras.runs.rollup_reader import RollupReader

EVERY = 1.0
"""Seconds between two looks at a local folder."""
EVERY_ELSEWHERE = 3.0
"""Seconds between two looks at another store: each costs requests."""


class Followed:
    """One run that pages look at. Its methods may be called by any thread.

    Args:
        folder: its folder.

    Attributes:
        folder: its folder.
        every: seconds between two looks.
        used: when a page has asked last.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.every = EVERY if folder.appends else EVERY_ELSEWHERE
        self.used = time.monotonic()
        self._lock = threading.Lock()
        self._looked = -self.every
        self._picture = Picture()
        self._reader: RollupReader | None = None
        self._about: dict[str, Any] = {}
        self._asked: list[Request] = []

    def since(self, cursor: str) -> dict[str, Any]:
        """Return what a page with `cursor` has not seen: see `Picture.since`; with the facts of the run."""
        with self._lock:
            self.used = time.monotonic()
            if self.used - self._looked >= self.every / 2:  # Several pages share a look.
                self._looked = self.used
                self._look()
            about, picture = self._about, self._picture
            if about.get("error"):
                return {"about": about, "cursor": cursor, "broken": picture.broken}
            head = picture.head(about["rows"], about["epochs"], about["first"])
            head["silent"] = seconds_of_silence(picture.newest, about["simulation"])
            return {"about": about, "head": head, "asked": self._asked, **picture.since(cursor)}

    def _look(self) -> None:
        self._about = about_run(self.folder)
        if self._about.get("error"):
            return
        self._asked = ControlFiles(self.folder).asked() if self._about["status"] == "running" else []
        if self._reader is None:
            self._reader = RollupReader(self.folder)
        try:
            for entry in self._reader.new():
                self._picture.take(entry)
        except (RunError, OSError) as error:
            self._about = {**self._about, "trouble": f"The rest of the run cannot be read: {error}"}
        self._picture.broken = self._reader.broken
        if self._reader.broken:
            first = self._reader.first_broken
            self._about["trouble"] = f"{self._reader.broken} broken lines were left out, the first in {first}"
