"""The events of a run that count: without what restored servers and resumed trainings did once more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from distkeras.events import EpochEnded, ServerRestored, Window
from distkeras.runs.event_files import RunResumed, Written


@dataclass
class Limits:
    """Which windows count, as known from the events after them.

    Attributes:
        iterations: by worker, the first iteration that does not count.
        number: the largest number of a commit that counts; `None` for any.
        epochs: the first epoch that does not count; `None` for none.
    """

    iterations: dict[int, int] = field(default_factory=dict)
    number: int | None = None
    epochs: int | None = None

    def allow(self, window: Window) -> bool:
        """Whether `window` counts."""
        limit = self.iterations.get(window.worker)
        return (limit is None or window.iteration < limit) and (
            self.number is None or window.number <= self.number
        )

    def before(self, event: ServerRestored | RunResumed, ends: dict[int, int]) -> Limits:
        """Return the limits of the events before `event`, where these are those after it.

        Args:
            event: the roll-back.
            ends: number of the last commit, by epoch, as known before the event.
        """
        if isinstance(event, ServerRestored):
            iterations = dict(self.iterations)
            for worker, count in enumerate(event.commits):
                iterations[worker] = min(count, iterations.get(worker, count))
            return Limits(iterations, self.number, self.epochs)
        if event.source != "checkpoint":
            return self
        # The workers after a checkpoint number their windows anew: their limits do not hold for earlier ones.
        return Limits({}, ends.get(event.epochs - 1, 0), event.epochs)


class Seen:
    """Which windows came already: a resumed driver may get some again that the killed one had written."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, int], int] = {}  # The next iteration, by worker and fragment.

    def is_new(self, window: Window) -> bool:
        """Return whether `window` comes for the first time, and count it."""
        key = window.worker, window.fragment
        if window.iteration < self._next.get(key, 0):
            return False
        self._next[key] = window.iteration + 1
        return True

    def roll_back(self, event: ServerRestored | RunResumed) -> None:
        """Forget the windows that come again."""
        if isinstance(event, ServerRestored):
            commits = event.commits
            known = {key: count for key, count in self._next.items() if key[0] < len(commits)}
            self._next = {key: min(count, commits[key[0]]) for key, count in known.items()}
        elif event.source == "checkpoint":
            self._next = {}


def counted_windows(read: Callable[[], Iterable[Written]], seen: Seen | None = None) -> Iterator[Window]:
    """Yield the windows that count, each once, in the order of the center.

    The events are read twice, so that a long run needs no memory for them.

    Args:
        read: returns the events from the first one on.
        seen: counts them, for those that follow.
    """
    limits = _limits(read())
    seen = seen or Seen()
    current = next(limits)
    for event in read():
        if isinstance(event, ServerRestored | RunResumed):
            current = next(limits)
            seen.roll_back(event)
        elif isinstance(event, Window) and current.allow(event) and seen.is_new(event):
            yield event


def _limits(events: Iterable[Written]) -> Iterator[Limits]:
    """Yield the limits at the start, and then those after each roll-back."""
    ends: dict[int, int] = {}
    base = 0  # Epochs before the first row of the present center: it counts its own from 0.
    backs: list[tuple[ServerRestored | RunResumed, dict[int, int]]] = []
    for event in events:
        if isinstance(event, EpochEnded):
            ends[base + event.epoch] = event.number
        if isinstance(event, RunResumed) and event.source == "checkpoint":
            base = event.epochs
        if isinstance(event, ServerRestored | RunResumed):
            backs.append((event, dict(ends)))
    found = [Limits()]
    for event, known in reversed(backs):
        found.append(found[-1].before(event, known))
    return reversed(found)
