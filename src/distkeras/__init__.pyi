# Written by scripts/stubs.py (`make stubs`): do not edit.
from distkeras import algorithms as algorithms
from distkeras import center as center
from distkeras import cluster as cluster
from distkeras import doctor as doctor
from distkeras import evaluators as evaluators
from distkeras import events as events
from distkeras import guidance as guidance
from distkeras import jobs as jobs
from distkeras import lifecycle as lifecycle
from distkeras import ml as ml
from distkeras import model as model
from distkeras import monitor as monitor
from distkeras import plots as plots
from distkeras import predictors as predictors
from distkeras import record as record
from distkeras import runs as runs
from distkeras import simulation as simulation
from distkeras import trainers as trainers
from distkeras import transformers as transformers
from distkeras import utils as utils
from distkeras import wire as wire
from distkeras import worker as worker
from distkeras.trainers import ADAG as ADAG
from distkeras.trainers import AEASGD as AEASGD
from distkeras.trainers import DCASGD as DCASGD
from distkeras.trainers import DOWNPOUR as DOWNPOUR
from distkeras.trainers import EAMSGD as EAMSGD
from distkeras.trainers import EASGD as EASGD
from distkeras.trainers import GPA as GPA
from distkeras.trainers import TLS as TLS
from distkeras.trainers import AdagradDOWNPOUR as AdagradDOWNPOUR
from distkeras.trainers import AdaptiveADAG as AdaptiveADAG
from distkeras.trainers import AdaptiveDCASGD as AdaptiveDCASGD
from distkeras.trainers import Averaged as Averaged
from distkeras.trainers import AveragingTrainer as AveragingTrainer
from distkeras.trainers import BadUpdates as BadUpdates
from distkeras.trainers import ChangedDefaultWarning as ChangedDefaultWarning
from distkeras.trainers import Checkpoints as Checkpoints
from distkeras.trainers import DecoupledDiLoCo as DecoupledDiLoCo
from distkeras.trainers import DelayedNesterov as DelayedNesterov
from distkeras.trainers import DiLoCo as DiLoCo
from distkeras.trainers import DistributedTrainer as DistributedTrainer
from distkeras.trainers import DyLU as DyLU
from distkeras.trainers import DynSGD as DynSGD
from distkeras.trainers import EagerDiLoCo as EagerDiLoCo
from distkeras.trainers import EnsembleTrainer as EnsembleTrainer
from distkeras.trainers import FedAdam as FedAdam
from distkeras.trainers import FedBuff as FedBuff
from distkeras.trainers import GapAware as GapAware
from distkeras.trainers import HALoS as HALoS
from distkeras.trainers import History as History
from distkeras.trainers import LocalSGD as LocalSGD
from distkeras.trainers import Padding as Padding
from distkeras.trainers import Placement as Placement
from distkeras.trainers import Recommendation as Recommendation
from distkeras.trainers import RegionServers as RegionServers
from distkeras.trainers import RescaledASGD as RescaledASGD
from distkeras.trainers import Resources as Resources
from distkeras.trainers import RingleaderASGD as RingleaderASGD
from distkeras.trainers import Ringmaster as Ringmaster
from distkeras.trainers import RunOptions as RunOptions
from distkeras.trainers import ServerFailed as ServerFailed
from distkeras.trainers import ServerOptions as ServerOptions
from distkeras.trainers import SingleTrainer as SingleTrainer
from distkeras.trainers import SkewedLabelsWarning as SkewedLabelsWarning
from distkeras.trainers import SlowMo as SlowMo
from distkeras.trainers import SnapshotOptions as SnapshotOptions
from distkeras.trainers import SparseLoCo as SparseLoCo
from distkeras.trainers import StopWhen as StopWhen
from distkeras.trainers import StreamingDiLoCo as StreamingDiLoCo
from distkeras.trainers import Trainer as Trainer
from distkeras.trainers import TrainingResult as TrainingResult
from distkeras.trainers import Transition as Transition
from distkeras.trainers import TrimmedMean as TrimmedMean
from distkeras.trainers import UnfairWarning as UnfairWarning
from distkeras.trainers import UnstableWarning as UnstableWarning
from distkeras.trainers import WorkerError as WorkerError
from distkeras.trainers import compare as compare
from distkeras.trainers import evaluate as evaluate
from distkeras.trainers import fit as fit
from distkeras.trainers import load_model as load_model
from distkeras.trainers import load_run as load_run
from distkeras.trainers import merge as merge
from distkeras.trainers import predict as predict
from distkeras.trainers import recommend as recommend
from distkeras.trainers import save_model as save_model

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
__version__: str
