"""The record of a training: the requests that its servers handled, in order; and their replay to the bit."""

from distkeras.record.entries import RecordError, Silence, Start, Step, Told, read_record
from distkeras.record.recorded import Recorded
from distkeras.record.replayer import ReplayDiverged, Replayed, replay

__all__ = [
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
