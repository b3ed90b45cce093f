"""The transitions of a job as sentences: logged, kept, and added to an error that ends the job."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from distkeras.cluster.narration import Progress, describe
from distkeras.events import Event, ServerRestored, ServerStatus, Window
from distkeras.wire.redaction import Redaction

MAX_TRANSITIONS = 1000
TOLD_WITH_ERRORS = 20

logger = logging.getLogger("distkeras.events")


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state of a training: of a worker, a server, a round, a snapshot, or of the job itself.

    Attributes:
        timestamp: seconds since the Unix epoch.
        text: a sentence.
        event: the event that reported the transition; `None` if the driver itself observed it.
    """

    timestamp: float
    text: str
    event: Event | None = None


class Story:
    """The last thousand transitions of one training. Each is logged, too.

    Args:
        secrets: strings to hide in all texts.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._transitions: deque[Transition] = deque(maxlen=MAX_TRANSITIONS)
        self._secrets = set(secrets)
        self._hide = Redaction(self._secrets)
        self._progress: dict[int, Progress] = {}

    def keep_secret(self, secrets: Iterable[str]) -> None:
        """Hide `secrets` in all texts from now on."""
        self._secrets.update(secrets)
        self._hide = Redaction(self._secrets)

    def hide(self, text: str) -> str:
        """Return `text` without secrets."""
        return self._hide(text)

    def tell(self, text: str, level: int = logging.INFO, name: str = logger.name) -> None:
        """Log `text` and keep it.

        Args:
            text: a sentence about the transition.
            level: the log level.
            name: name of the logger.
        """
        self._add(time.time(), text, level, name)

    def take(self, event: Event) -> None:
        """Log the sentence for `event`, and keep it; a window or a status is not a transition."""
        if isinstance(event, ServerStatus):
            return
        if isinstance(event, Window):
            self._progress[event.worker] = Progress(event.iteration + 1, event.epoch)
            return
        if isinstance(event, ServerRestored):
            for worker, windows in enumerate(event.commits):
                if self._progress.get(worker, Progress()).windows != windows:
                    self._progress[worker] = Progress(windows)
        level, text = describe(event, self._progress)
        self._add(event.timestamp, text, level, logger.name, event)

    def transitions(self) -> list[Transition]:
        """Return the last thousand transitions, oldest first."""
        return list(self._transitions)  # Atomic, while other threads append: it runs no Python code.

    def add_to(self, error: BaseException) -> None:
        """Add the last transitions to `error`, as a note that is displayed with it."""
        last = self.transitions()[-TOLD_WITH_ERRORS:]
        if not last or any(note.startswith(_TITLE) for note in getattr(error, "__notes__", ())):
            return
        now = time.time()
        lines = [f"{now - each.timestamp:10.1f} s ago  {each.text}" for each in last]
        error.add_note("\n".join([f"{_TITLE} ({len(last)}):", *lines]))

    def _add(self, timestamp: float, text: str, level: int, name: str, event: Event | None = None) -> None:
        text = self.hide(text)
        self._transitions.append(Transition(timestamp, text, event))
        logging.getLogger(name).log(level, "%s", text, stacklevel=3)  # The line of the caller.


_TITLE = "The last state changes of this training"
