"""The keyword arguments that trainers hand on, for type checkers, which then find a misspelt one.

A test compares them with the arguments of `DistributedTrainer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from distkeras.center import BadUpdates, RegionServers
    from distkeras.cluster.options import ServerOptions
    from distkeras.cluster.placement import Placement
    from distkeras.cluster.resources import Resources
    from distkeras.cluster.validate import Names, Weights
    from distkeras.wire.codecs import Codec
    from distkeras.worker.padding import PadTo


class FurtherOptions(TypedDict, total=False):
    """The arguments of `DistributedTrainer` that `fit` takes as they are."""

    features_col: Names
    label_col: Names | None
    sample_weight_col: Weights
    seed: int | None
    custom_objects: Mapping[str, Any] | None
    preprocess: Callable[..., Any] | None
    pad_to: PadTo | None
    drop_remainder: bool
    quorum: int | None
    grace: float
    num_parameter_servers: int
    compression: str | Codec | None
    overlap: bool | int
    schedule_steps: Literal["training", "local"]
    on_bad_update: Literal["raise", "skip"] | BadUpdates
    on_lost_worker: Literal["wait", "proceed"]
    server: ServerOptions | None
    server_placement: str | Placement
    resources: Resources | None
    min_workers: int | None
    max_workers: int | None
    regions: int | RegionServers | None


class TrainerOptions(FurtherOptions, total=False):
    """The arguments of `DistributedTrainer` by keyword alone."""

    metrics: Any
    loss_weights: Any
    num_workers: int
    batch_size: int | None
    class_weight: Mapping[int, float] | None
    num_epoch: int
    input_shape: Any
    verbose: int | str
    global_batch_size: int | None
