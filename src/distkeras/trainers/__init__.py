"""The public interface: one trainer class per distributed optimizer, and the history of a training.

Type checkers read `__init__.pyi`, which `make stubs` writes.
"""

from typing import Any

from distkeras.algorithms import REGISTRY
from distkeras.center import BadUpdates, RegionServers
from distkeras.cluster.job import WorkerError
from distkeras.cluster.label_skew import SkewedLabelsWarning
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.placement import Placement
from distkeras.cluster.resources import Resources
from distkeras.cluster.server import ServerFailed
from distkeras.cluster.story import Transition
from distkeras.guidance import Recommendation, recommend
from distkeras.lifecycle import StopWhen, TrainingResult
from distkeras.plots import compare
from distkeras.removed_names import missing
from distkeras.runs import Checkpoints, RunOptions, load_model, load_run, save_model
from distkeras.trainers.averaging import AveragingTrainer
from distkeras.trainers.base import Trainer
from distkeras.trainers.checks import UnstableWarning
from distkeras.trainers.defaults import ChangedDefaultWarning
from distkeras.trainers.distributed import DistributedTrainer
from distkeras.trainers.ensemble import EnsembleTrainer, merge
from distkeras.trainers.fit import fit
from distkeras.trainers.history import Averaged, History
from distkeras.trainers.judging import evaluate, predict
from distkeras.trainers.named import NamedTrainer, trainer_of
from distkeras.trainers.single import SingleTrainer
from distkeras.trainers.unfair import UnfairWarning
from distkeras.wire.store import SnapshotOptions
from distkeras.wire.tls import TLS
from distkeras.worker.padding import Padding

_NAMED_OTHERWISE = {"Averaging", "Sequential"}  # AveragingTrainer and SingleTrainer
_OF_ALGORITHMS: dict[str, type[NamedTrainer]] = {
    name: trainer_of(algorithm) for name, algorithm in REGISTRY.items() if name not in _NAMED_OTHERWISE
}
globals().update(_OF_ALGORITHMS)

__all__ = [
    "TLS",
    "Averaged",
    "AveragingTrainer",
    "BadUpdates",
    "ChangedDefaultWarning",
    "Checkpoints",
    "DistributedTrainer",
    "EnsembleTrainer",
    "History",
    "Padding",
    "Placement",
    "Recommendation",
    "RegionServers",
    "Resources",
    "RunOptions",
    "ServerFailed",
    "ServerOptions",
    "SingleTrainer",
    "SnapshotOptions",
    "StopWhen",
    "Trainer",
    "TrainingResult",
    "Transition",
    "SkewedLabelsWarning",
    "UnfairWarning",
    "UnstableWarning",
    "WorkerError",
    "compare",
    "evaluate",
    "fit",
    "load_model",
    "load_run",
    "merge",
    "predict",
    "recommend",
    "save_model",
    *_OF_ALGORITHMS,
]


def __getattr__(name: str) -> Any:
    raise missing(__name__, name)
