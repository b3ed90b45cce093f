"""The record of a training: all requests that its servers handled, in order. Its replay is bit-exact."""

from distkeras.record.entries import GraceOver, RecordError, Silence, Start, Step, Told, read_record
from distkeras.record.recorded import Recorded
from distkeras.record.replayer import ReplayDiverged, Replayed, replay

__all__ = [
    "GraceOver",
    "RecordError",
    "Recorded",
    "ReplayDiverged",
    "Replayed",
    "Silence",
    "Start",
    "Step",
    "Told",
    "read_record",
    "replay",
]
