"""How many workers of an elastic training are there, and for how long there have been too few."""

from __future__ import annotations

from distkeras.events import Event, ServerRestored, Window, WorkerBack, WorkerJoined, WorkerLeft, WorkerLost


class Presence:
    """Counts the shares that a process trains, by the center's events.

    Args:
        least: workers that there should be.
        shares: number of shares.
        give_up: seconds for which there may be fewer.
        started: time of the start.
    """

    def __init__(self, least: int, shares: int, give_up: float, started: float) -> None:
        self._least = least
        self._give_up = give_up
        self._unfinished = set(range(shares))
        self._training: set[int] = set()
        self._few_since: float | None = started

    def take(self, event: Event, now: float) -> None:
        """Receive an event."""
        match event:
            case WorkerJoined() | Window() | WorkerBack():
                self._training.add(event.worker)
                self._unfinished.add(event.worker)
            case WorkerLost():
                self._training.discard(event.worker)
            case WorkerLeft():
                self._training.discard(event.worker)
                if not event.rests:
                    self._unfinished.discard(event.worker)
            case ServerRestored():  # Those who train join again.
                self._few_since = None
                self._training.clear()
                self._unfinished = {share for share, left in enumerate(event.left) if not left}
            case _:
                return
        # At the end there are fewer shares than workers.
        enough = len(self._training) >= min(self._least, len(self._unfinished))
        if enough:
            self._few_since = None
        elif self._few_since is None:
            self._few_since = now

    def complaint(self, now: float) -> str | None:
        """Return what to say if there have been too few workers for too long."""
        if self._few_since is None or now - self._few_since <= self._give_up:
            return None
        return (
            f"Expected `min_workers={self._least}` or more workers. For {now - self._few_since:.0f} s there "
            f"have been fewer; now there are {len(self._training)}. See the Spark UI for executors that were "
            "lost or never started. Lower `min_workers`, or raise ServerOptions(give_up=...)."
        )
