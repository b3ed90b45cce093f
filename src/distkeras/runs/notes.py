"""Notes that monitors keep in a run, for its next session."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distkeras.runs.folder import Folder

FOLDER = "monitors"


class Notes:
    """A small dict by name, kept in a run: `monitors/NAME.json`. Without a run, it is kept in memory.

    Args:
        folder: the folder of the run; `None` for none.
    """

    def __init__(self, folder: Folder | None = None) -> None:
        self._folder = folder
        self._kept: dict[str, dict[str, Any]] = {}

    def get(self, name: str) -> dict[str, Any]:
        """Return what was put, in this session or an earlier one; an empty dict for nothing."""
        if name not in self._kept and self._folder is not None:
            try:
                self._kept[name] = json.loads(self._folder.read(f"{FOLDER}/{name}.json"))
            except FileNotFoundError:
                return {}
        return dict(self._kept.get(name, {}))

    def put(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep `values`, plain JSON, in place of what was there.

        Raises:
            OSError: the run cannot be written to.
        """
        self._kept[name] = dict(values)
        if self._folder is not None:
            self._folder.write(f"{FOLDER}/{name}.json", json.dumps(self._kept[name]).encode())
