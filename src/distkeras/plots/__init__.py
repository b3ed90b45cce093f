"""Pictures of trainings, all in one style."""

from __future__ import annotations

from distkeras.plots.compare import compare

__all__ = ["compare"]
