"""What the center knows of every worker: which of its commits count, and whether it is there."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from distkeras.center.messages import Exchange

_SAVED = ("sequence", "epoch", "step", "samples", "left")


@dataclass
class WorkerRecord:
    """One worker. Its record changes under its lock, together with the center: each commit counts once.

    Attributes:
        lock: held while a request of the worker is handled.
        sequence: number of its last commit.
        epoch: epoch of the minibatch after it.
        step: index in that epoch of that minibatch.
        samples: rows behind all its commits.
        left: whether it has said that the last one was its last.
        joined: whether this very server has seen it join. This and what follows is in no snapshot.
        lost: whether nothing has been heard of it for too long.
        missed: whether the driver waits for a sign of life of it: it was lost, or the server began anew.
        refused: its windows, up to the last one, that were refused one after the other.
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
        """Note that `commit` counts, or is passed over, with so many rows behind it."""
        self.sequence, self.epoch, self.step = commit.sequence, commit.epoch, commit.step
        self.samples += samples

    def saved(self) -> dict[str, int]:
        """Return what a snapshot has of it, as plain JSON."""
        return {name: getattr(self, name) for name in _SAVED}

    def restore(self, saved: dict[str, int]) -> None:
        """Go on from what a snapshot has of it; it has to join again."""
        for name in _SAVED:
            setattr(self, name, saved[name])
        self.missed = not self.left
