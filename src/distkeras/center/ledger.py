"""What the center knows about each worker: its commits and whether it is alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distkeras.algorithms import TAKE, Commit
from distkeras.center.reports import Reports
from distkeras.center.requests import Exchange
from distkeras.events import Phase, Reported, Window

_SAVED = ("sequence", "epoch", "step", "samples", "left", "rests")

DECAY = 0.8
"""Weight of the windows so far at the next one, in the average of a worker's speed: about 5 windows count."""


@dataclass
class WorkerRecord:
    """The record of one worker. It changes under its lock, with the center, so that each commit counts once.

    A snapshot holds the attributes from `sequence` to `timed`.

    Attributes:
        lock: held while the center handles a request of the worker.
        reports: what the workers report; a state counts with its commit.
        sequence: number of the worker's last commit.
        epoch: epoch of the next minibatch.
        step: index of the next minibatch in that epoch.
        samples: rows in all its commits.
        left: whether the worker has committed its last window.
        rests: whether the worker has committed the last window of an epoch, and goes on later.
        timed: minibatch steps in the windows whose time is known, and their seconds; recent ones weigh most.
        joined: whether the worker has joined this server process.
        lost: whether the worker has sent nothing for too long.
        missed: whether the worker's next message is to be reported: it was lost, or the server restarted.
        refused: number of consecutive refused windows up to the last one.
        phase: what its process does, as far as it has said.
    """

    lock: threading.RLock
    reports: Reports = field(default_factory=Reports)
    sequence: int = 0
    epoch: int = 0
    step: int = 0
    samples: int = 0
    left: bool = False
    rests: bool = False
    timed: tuple[float, float] = (0.0, 0.0)
    joined: bool = False
    lost: bool = False
    missed: bool = False
    refused: int = 0
    phase: Phase | None = None

    @property
    def speed(self) -> float:
        """Minibatch steps a second, an average over the recent windows; 0 if it is unknown."""
        steps, seconds = self.timed  # At once: another thread may commit.
        return steps / seconds if seconds else 0.0

    def advance(
        self, commit: Exchange, window: tuple[int, int], clock: Callable[[], float]
    ) -> tuple[Reported, ...]:
        """Record that `commit` was applied or skipped.

        Args:
            commit: the commit.
            window: minibatches of its window, and rows: 0 if it was skipped.
            clock: tells the time of events.

        Returns:
            The event of the state that came with it, if one did.
        """
        if commit.seconds:
            steps, seconds = self.timed
            self.timed = DECAY * steps + window[0], DECAY * seconds + commit.seconds
        self.sequence, self.epoch, self.step = commit.sequence, commit.epoch, commit.step
        self.samples += window[1]
        if not self.reports.arriving:  # The usual case takes no lock.
            return ()
        state = self.reports.applied(commit.worker, commit.sequence)
        return () if state is None else (Reported(commit.worker, "state", *state.facts, clock()),)

    def commit(
        self,
        request: Exchange,
        staleness: int,
        commit: Commit,
        clock: Callable[[], float],
        told: bool = True,
    ) -> tuple[Window | Reported, ...]:
        """Record that `request` was applied as `commit` says, and return the events that report it.

        Args:
            request: the commit.
            staleness: its staleness.
            commit: what was decided.
            clock: tells the time of events.
            told: whether an event of the window is wanted.
        """
        self.refused = 0
        window = request.window
        reported = self.advance(request, window, clock)
        if not told:
            return reported
        verdict: Any = "take" if commit.verdict is TAKE else commit.verdict.value
        told_of = Window(
            request.worker,
            request.window_epoch,
            request.sequence - 1,
            *window,
            request.metrics,
            staleness,
            clock(),
            commit.number,
            verdict,
            request.fragment,
            request.timing,
        )
        return (told_of, *reported)

    def saved(self) -> dict[str, Any]:
        """Return the worker's record for a snapshot, as plain JSON."""
        return {name: getattr(self, name) for name in _SAVED} | {"timed": self.timed}

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from a snapshot's record; the worker has to join again."""
        for name in _SAVED:
            setattr(self, name, saved.get(name, False))  # Older snapshots have no `rests`.
        steps, seconds = saved.get("timed", (0.0, 0.0))  # Snapshots of version 1 have no times.
        self.timed = steps, seconds
        self.missed = not (self.left or self.rests)
