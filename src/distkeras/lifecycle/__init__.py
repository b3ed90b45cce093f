"""What goes around a training: validation, callbacks, stopping, the result. It runs on the driver."""

from __future__ import annotations

from distkeras.lifecycle.around import Around, Validation
from distkeras.lifecycle.result import TrainingResult
from distkeras.lifecycle.stop_when import StopWhen

__all__ = ["Around", "StopWhen", "TrainingResult", "Validation"]
