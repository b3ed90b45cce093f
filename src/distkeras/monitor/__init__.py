"""Displays of a running training, and what takes its events elsewhere."""

from __future__ import annotations

from distkeras.monitor.monitors import Monitor, TrainingFacts

__all__ = ["Monitor", "TrainingFacts"]
