"""What a run says of itself: `run.json`, and `result.json` at its end."""

from __future__ import annotations

import json
from typing import Any

from distkeras.runs.folder import Folder, RunError

VERSION = 1
"""Version of the format, raised when older releases cannot read it. Releases read all older versions."""
FACTS, RESULT = "run.json", "result.json"
MODEL, SNAPSHOTS = "model.keras", "snapshots"


def read_facts(folder: Folder) -> dict[str, Any] | None:
    """Return the contents of `run.json`; `None` if the folder holds no run.

    Raises:
        RunError: a later release wrote it.
    """
    facts = json_of(folder, FACTS)
    if facts is not None and facts.get("format", 0) > VERSION:
        raise RunError(
            f"Expected a run of format {VERSION} or earlier, which this release of distkeras reads. "
            f"Received: format {facts['format']}, of a later release. Upgrade distkeras."
        )
    return facts


def final_of(member: int | None) -> str:
    """Return the name of the file with the model that a training has returned, or with that of a member."""
    return "final.keras" if member is None else f"final-member-{member}.keras"


def json_of(folder: Folder, name: str) -> dict[str, Any] | None:
    """Return the contents of a file; `None` if there is none."""
    try:
        facts: dict[str, Any] = json.loads(folder.read(name))
    except FileNotFoundError:
        return None
    return facts
