# Written by scripts/stubs.py (`make stubs`): do not edit.
from typing import Any, Unpack

import keras

from distkeras.center import BadUpdates as BadUpdates
from distkeras.center import RegionServers as RegionServers
from distkeras.cluster.job import WorkerError as WorkerError
from distkeras.cluster.label_skew import SkewedLabelsWarning as SkewedLabelsWarning
from distkeras.cluster.options import ServerOptions as ServerOptions
from distkeras.cluster.placement import Placement as Placement
from distkeras.cluster.resources import Resources as Resources
from distkeras.cluster.server import ServerFailed as ServerFailed
from distkeras.cluster.story import Transition as Transition
from distkeras.guidance import Recommendation as Recommendation
from distkeras.guidance import recommend as recommend
from distkeras.lifecycle import StopWhen as StopWhen
from distkeras.lifecycle import TrainingResult as TrainingResult
from distkeras.plots import compare as compare
from distkeras.runs import Checkpoints as Checkpoints
from distkeras.runs import RunOptions as RunOptions
from distkeras.runs import load_model as load_model
from distkeras.runs import load_run as load_run
from distkeras.runs import save_model as save_model
from distkeras.trainers.averaging import AveragingTrainer as AveragingTrainer
from distkeras.trainers.base import Trainer as Trainer
from distkeras.trainers.checks import UnstableWarning as UnstableWarning
from distkeras.trainers.defaults import ChangedDefaultWarning as ChangedDefaultWarning
from distkeras.trainers.distributed import DistributedTrainer as DistributedTrainer
from distkeras.trainers.ensemble import EnsembleTrainer as EnsembleTrainer
from distkeras.trainers.ensemble import merge as merge
from distkeras.trainers.fit import fit as fit
from distkeras.trainers.history import Averaged as Averaged
from distkeras.trainers.history import History as History
from distkeras.trainers.judging import evaluate as evaluate
from distkeras.trainers.judging import predict as predict
from distkeras.trainers.keywords import TrainerOptions
from distkeras.trainers.named import NamedTrainer
from distkeras.trainers.single import SingleTrainer as SingleTrainer
from distkeras.trainers.unfair import UnfairWarning as UnfairWarning
from distkeras.wire.store import SnapshotOptions as SnapshotOptions
from distkeras.wire.tls import TLS as TLS
from distkeras.worker.padding import Padding as Padding

__all__ = [
    "ADAG",
    "AEASGD",
    "DCASGD",
    "DOWNPOUR",
    "EAMSGD",
    "EASGD",
    "GPA",
    "TLS",
    "AdagradDOWNPOUR",
    "AdaptiveADAG",
    "AdaptiveDCASGD",
    "Averaged",
    "AveragingTrainer",
    "BadUpdates",
    "ChangedDefaultWarning",
    "Checkpoints",
    "DecoupledDiLoCo",
    "DelayedNesterov",
    "DiLoCo",
    "DistributedTrainer",
    "DyLU",
    "DynSGD",
    "EagerDiLoCo",
    "EnsembleTrainer",
    "FedAdam",
    "FedBuff",
    "GapAware",
    "HALoS",
    "History",
    "LocalSGD",
    "Padding",
    "Placement",
    "Recommendation",
    "RegionServers",
    "RescaledASGD",
    "Resources",
    "RingleaderASGD",
    "Ringmaster",
    "RunOptions",
    "ServerFailed",
    "ServerOptions",
    "SingleTrainer",
    "SkewedLabelsWarning",
    "SlowMo",
    "SnapshotOptions",
    "SparseLoCo",
    "StopWhen",
    "StreamingDiLoCo",
    "Trainer",
    "TrainingResult",
    "Transition",
    "TrimmedMean",
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
]

class ADAG(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class AdagradDOWNPOUR(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        epsilon: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class AdaptiveADAG(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        gamma: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class AdaptiveDCASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        learning_rate: float = ...,
        lambda_0: float = ...,
        decay: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class AEASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        rho: float | None = ...,
        learning_rate: float = ...,
        alpha: float | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DCASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        learning_rate: float = ...,
        lambda_: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DecoupledDiLoCo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        fragments: int | None = ...,
        fragment_pattern: str = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DelayedNesterov(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        period: int | None = ...,
        activation: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DiLoCo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DOWNPOUR(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DyLU(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        period: int | None = ...,
        activation: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class DynSGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class EagerDiLoCo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        share: float | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class EAMSGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        rho: float | None = ...,
        learning_rate: float = ...,
        alpha: float | None = ...,
        momentum: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class EASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        alpha: float | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class FedAdam(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        beta_1: float = ...,
        beta_2: float = ...,
        epsilon: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class FedBuff(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        buffer_size: int | None = ...,
        outer_learning_rate: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class GapAware(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        learning_rate: float = ...,
        decay: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class GPA(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        mu_x: float = ...,
        mu_y: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class HALoS(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        period: int | None = ...,
        activation: float = ...,
        alpha: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class LocalSGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class RescaledASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class RingleaderASGD(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class Ringmaster(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        delay_threshold: float | None = ...,
        variance: float | None = ...,
        accuracy: float | None = ...,
        stop: bool = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class SlowMo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class SparseLoCo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        residual_decay: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class StreamingDiLoCo(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        outer_learning_rate: float = ...,
        outer_momentum: float = ...,
        alpha: float = ...,
        fragments: int | None = ...,
        fragment_pattern: str = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...

class TrimmedMean(NamedTrainer):
    def __init__(
        self,
        keras_model: keras.Model,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        communication_window: int | None = ...,
        beta: float = ...,
        **options: Unpack[TrainerOptions],
    ) -> None: ...
