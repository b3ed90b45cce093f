"""The settings of a trainer that one of its trainings reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import keras
    from pyspark.sql import DataFrame

    from distkeras.algorithms import Algorithm
    from distkeras.center import BadUpdates, Fragments, RegionServers
    from distkeras.center.elastic import Elastic
    from distkeras.cluster.arrays import Roles
    from distkeras.cluster.data import Prepared
    from distkeras.cluster.options import ServerOptions
    from distkeras.cluster.placement import Placement
    from distkeras.cluster.resources import Resources
    from distkeras.cluster.story import Story
    from distkeras.cluster.validate import Names, Weights
    from distkeras.trainers.given import GivenModel
    from distkeras.trainers.history import History
    from distkeras.wire.codecs import Codec
    from distkeras.worker.feeding import Feeding


class Configured(Protocol):
    """A trainer as `Training` sees it: see the arguments of `DistributedTrainer`."""

    keras_model: keras.Model
    algorithm: Algorithm
    num_workers: int
    batch_size: int
    num_epoch: int
    features_col: Names
    label_col: Names | None
    sample_weight_col: Weights
    feeding: Feeding
    seed: int
    quorum: int | None
    grace: float
    overlap: bool | int
    num_parameter_servers: int
    schedule_steps: Any
    compression: Codec | None
    custom_objects: Any
    on_bad_update: BadUpdates
    on_lost_worker: Any
    server: ServerOptions
    server_placement: Placement
    resources: Resources | None
    elastic: Elastic | None
    regions: RegionServers | None
    verbose: int | str
    _seeded: bool
    _given: GivenModel
    _fragments: Fragments | None
    _history: History
    _story: Story

    @property
    def independent(self) -> bool: ...

    def _settings(self, shuffle: bool, num_rows: int) -> dict[str, Any]: ...

    def _prepare(
        self, frame: DataFrame, roles: Roles, shuffle: bool, num_partitions: int, *, with_content: bool
    ) -> Prepared: ...

    def _prepare_rows(
        self, frame: DataFrame, roles: Roles, num_partitions: int, *, feeding: Feeding, **further: Any
    ) -> Prepared: ...
