"""Events of a small made-up training, for the tests of monitors."""

from __future__ import annotations

from distkeras.events import EpochEnded, Timing, Window
from distkeras.monitor import TrainingFacts

START = 1_000_000.0
TIMING = Timing(0.06, 0.01, 0.03, 0.02, 1000, 500, 0)


def facts(**further):
    settings = {"num_epoch": 3, "rule": {"name": "ADAG", "communication_window": 5}, "columns": "x" * 600}
    given = {"num_workers": 2, "rows": 400, "epochs": 3, "target": 1200, "settings": settings}
    return TrainingFacts("ADAG, 2 workers", "run-7", "ADAG", **given | further)


def ended(epoch, samples, timestamp, member=0):
    """Return the end of an epoch of the center, with so many rows."""
    return EpochEnded(epoch, samples, 0, 0, 1, b"", 1, 0.0, member, True, timestamp)


def windows(first, last, *, seconds=0.25, loss=lambda number: 1.0 / (1 + number), start=START):
    """Return windows number `first` to `last` of the center, of two workers in turn, ten rows each."""
    return [
        Window(
            worker=number % 2,
            epoch=0,
            iteration=number // 2,
            steps=1,
            samples=10,
            metrics={"loss": loss(number), "accuracy": number / 100},
            staleness=number % 3,
            timestamp=start + number * seconds,
            number=number + 1,
            timing=TIMING,
        )
        for number in range(first, last)
    ]
