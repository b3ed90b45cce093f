"""Obeys what a person asks of a running training through files in its run: to stop, or for a checkpoint."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distkeras.cluster.watching import Watching
    from distkeras.lifecycle.plan import Stop
    from distkeras.runs import Run
    from distkeras.runs.control_files import Request

logger = logging.getLogger(__name__)


class Requests:
    """Looks for requests in a thread, about once a second, during a `with` block.

    A store that does not answer so holds up nobody. The caller's thread obeys: it may save models.

    Args:
        run: the run; `None` for none, and then for no requests.
        stop: the reason to end the training.
        save: saves the center as a model, and returns where.
    """

    def __init__(self, run: Run | None, stop: Stop, save: Callable[[Watching], str]) -> None:
        self._run, self._stop, self._save = run, stop, save
        self._asked: queue.SimpleQueue[tuple[Request, str]] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._is_failing = False

    def __enter__(self) -> Requests:
        if self._run is not None:
            name = "distkeras-requests"
            threading.Thread(target=self._watch, args=(self._run,), name=name, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()

    def __call__(self, watching: Watching) -> None:
        """Obey what was found, in the caller's thread."""
        while self._run is not None and not self._asked.empty():
            request, by = self._asked.get()
            detail = f"The training will end: {by} asked for it" if request == "stop" else ""
            if request == "stop":
                self._stop.set("stop", f"{by} asked for it")
            else:
                detail = self._saved(watching, by)
            try:
                self._run.obeyed(request, detail)
            except OSError as error:
                logger.warning("The request %r cannot be removed: %s", request, self._run.hidden(str(error)))

    def _saved(self, watching: Watching, by: str) -> str:
        try:
            return f"Checkpoint saved, as {by} asked: {self._save(watching)}"
        except (OSError, ValueError) as error:
            logger.warning("The checkpoint that was requested cannot be saved: %s", error)
            return f"The checkpoint that {by} asked for cannot be saved: {error}"

    def _watch(self, run: Run) -> None:
        pending: set[Request] = set()
        while not self._ending.wait(run.control.every):
            try:
                found = set(run.control.asked())
                for request in sorted(found - pending):
                    self._asked.put((request, run.control.by(request)))
                pending = found
                self._is_failing = False
            except OSError as error:
                if not self._is_failing:
                    text = run.hidden(str(error))
                    logger.warning("The run cannot be searched for requests; trying again: %s", text)
                self._is_failing = True
