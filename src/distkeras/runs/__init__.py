"""Run directories: what a training leaves behind, on any filesystem, to read and to go on with."""

from distkeras.runs.checkpoints import Checkpoint, CheckpointIndex, Checkpoints
from distkeras.runs.event_files import CenterEvaluated, RequestTaken, RunResumed, WriteFailed
from distkeras.runs.folder import RunError
from distkeras.runs.loaded import LoadedRun, load_run
from distkeras.runs.models import load_model, save_model
from distkeras.runs.options import RunOptions
from distkeras.runs.records import EpochRecord
from distkeras.runs.rollup import Epoch, Second, Totals, WorkerSecond
from distkeras.runs.run import Run

__all__ = [
    "CenterEvaluated",
    "Checkpoint",
    "CheckpointIndex",
    "Checkpoints",
    "Epoch",
    "EpochRecord",
    "LoadedRun",
    "RequestTaken",
    "Run",
    "RunError",
    "RunOptions",
    "RunResumed",
    "Second",
    "Totals",
    "WorkerSecond",
    "WriteFailed",
    "load_model",
    "load_run",
    "save_model",
]
