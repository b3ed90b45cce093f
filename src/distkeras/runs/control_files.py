"""What a person asks of a running training, as files in its run.

They are `control/stop.json` and `control/checkpoint.json`. The driver looks for them while it trains,
obeys, and removes them. Whoever can write to the run may ask.
"""

from __future__ import annotations

import json
import time
from typing import Literal, get_args

from distkeras.runs.folder import Folder

FOLDER = "control"
Request = Literal["stop", "checkpoint"]
REQUESTS: tuple[Request, ...] = get_args(Request)


class ControlFiles:
    """The requests in one run.

    Args:
        folder: the folder of the run.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    @property
    def every(self) -> float:
        """Seconds between two looks of the driver: an object store takes money for each."""
        return 1.0 if self._folder.appends else 5.0

    def ask(self, request: Request, by: str) -> None:
        """Ask the driver for something.

        Args:
            request: "stop" to end the training, whose model is returned; "checkpoint" to save the center as a
                model now.
            by: who asks, in words.

        Raises:
            ValueError: there is no such request.
            OSError: the run cannot be written to.
        """
        if request not in REQUESTS:
            raise ValueError(f"Expected one of {', '.join(REQUESTS)}. Received: request={request!r}")
        text = {"version": 1, "by": by, "timestamp": time.time()}
        self._folder.write(f"{FOLDER}/{request}.json", json.dumps(text).encode())

    def asked(self) -> list[Request]:
        """Return what is asked for and was not obeyed yet."""
        names = set(self._folder.names(FOLDER))
        return [request for request in REQUESTS if f"{request}.json" in names]

    def by(self, request: Request) -> str:
        """Return who asks. A file that is no JSON counts, too: a person may have made it by hand."""
        try:
            found = json.loads(self._folder.read(f"{FOLDER}/{request}.json"))
        except (ValueError, FileNotFoundError):
            found = None
        by = found.get("by") if isinstance(found, dict) else None
        return str(by) if by else "a file in the run"

    def remove(self, request: Request) -> None:
        """Remove a request: it was obeyed, or it was for an earlier driver."""
        self._folder.remove(f"{FOLDER}/{request}.json")
