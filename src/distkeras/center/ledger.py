"""What the center knows about each worker: its commits and whether it is alive."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from distkeras.algorithms import Commit
from distkeras.center.messages import Exchange
from distkeras.events import Window

_SAVED = ("sequence", "epoch", "step", "samples", "left")


@dataclass
class WorkerRecord:
    """The record of one worker. It changes under its lock, with the center, so that each commit counts once.

    A snapshot holds the attributes from `sequence` to `left`.

    Attributes:
        lock: held while the center handles a request of the worker.
        sequence: number of the worker's last commit.
        epoch: epoch of the next minibatch.
        step: index of the next minibatch in that epoch.
        samples: rows in all its commits.
        left: whether the worker has committed its last window.
        joined: whether the worker has joined this server process.
        lost: whether the worker has sent nothing for too long.
        missed: whether the worker's next message is to be reported: it was lost, or the server restarted.
        refused: number of consecutive refused windows up to the last one.
    """

    lock: threading.RLock
    sequence: int = 0
    epoch: int = 0
    step: int = 0
    samples: int = 0
    left: bool = False
    joined: bool = False
    lost: bool = False
    missed: bool = False
    refused: int = 0

    def advance(self, commit: Exchange, samples: int) -> None:
        """Record that `commit`, with `samples` rows, was applied or skipped."""
        self.sequence, self.epoch, self.step = commit.sequence, commit.epoch, commit.step
        self.samples += samples

    def commit(self, request: Exchange, staleness: int, commit: Commit, time: float) -> Window:
        """Record that `request` was applied as `commit` says, and return the event that reports it."""
        self.refused = 0
        self.advance(request, request.num_samples)
        return Window(
            worker=request.worker,
            epoch=request.window_epoch,
            iteration=request.sequence - 1,
            steps=request.num_steps,
            samples=request.num_samples,
            metrics=request.metrics,
            staleness=staleness,
            timestamp=time,
            number=commit.number,
            verdict=commit.verdict.value,
        )

    def saved(self) -> dict[str, int]:
        """Return the worker's record for a snapshot, as plain JSON."""
        return {name: getattr(self, name) for name in _SAVED}

    def restore(self, saved: dict[str, int]) -> None:
        """Continue from a snapshot's record; the worker has to join again."""
        for name in _SAVED:
            setattr(self, name, saved[name])
        self.missed = not self.left
