"""The base class of all trainers: it checks the arguments, runs the job and keeps the history."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center import BadUpdates, CenterConfig, RegionServers, bad_updates, fragments_of
from distkeras.center.elastic import check_elastic
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, prepare
from distkeras.cluster.description import about
from distkeras.cluster.evaluation import evaluate
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.placement import Placement
from distkeras.cluster.probe import check_python
from distkeras.cluster.resources import Resources
from distkeras.cluster.story import Story, Transition
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.user_line import levels_to_user
from distkeras.cluster.validate import Names, Weights
from distkeras.lifecycle.around import Around
from distkeras.lifecycle.result import TrainingResult
from distkeras.model.losses import loss_names
from distkeras.monitor.progress import checked_verbose
from distkeras.removed_names import Count, WithoutOldNames, named_arguments
from distkeras.runs.models import with_snapshot
from distkeras.trainers.checking import check
from distkeras.trainers.checks import (
    at_once,
    batch_size_of,
    check_choice,
    check_codec,
    check_fragments,
    check_kinds,
    check_optimizer,
    check_overlap,
    check_positive_integer,
    check_regions,
    check_resources,
    check_servers,
    check_tensors,
    elastic_of,
    warn_without_codec,
)
from distkeras.trainers.exclusive import one_at_a_time
from distkeras.trainers.fingerprint import describe_compiled, settings_of
from distkeras.trainers.given import GivenModel
from distkeras.trainers.history import Averaged, History
from distkeras.trainers.titles import call_of, name_of, title_of
from distkeras.trainers.training import Training
from distkeras.wire import codecs
from distkeras.wire.codecs import Codec
from distkeras.wire.compression import check_compressible
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import PadTo
from distkeras.worker.signature import check_strings, model_signature

if TYPE_CHECKING:
    import os

    from pyspark.sql import DataFrame

    from distkeras.doctor.diagnosis import Diagnosis
    from distkeras.lifecycle.keeping import Resume
    from distkeras.runs import RunOptions

BATCH_SIZE = 32
"""Rows of a minibatch of one worker, by default: as in Keras."""

Arrange = Callable[["DataFrame"], tuple["DataFrame", tuple[int, ...]]]


class Trainer(WithoutOldNames):
    """Abstract: runs an algorithm on Spark and keeps the history. `DistributedTrainer` has the arguments."""

    compared: ClassVar[tuple[str, ...]] = ()
    """Further attributes of a trainer that must be equal in a resumed training."""
    independent: ClassVar[bool] = False
    """Whether each worker trains a model of its own, as in an ensemble."""

    @named_arguments
    def __init__(
        self,
        keras_model: keras.Model,
        algorithm: Algorithm,
        worker_optimizer: str | keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        *,
        metrics: Any = None,
        loss_weights: Any = None,
        num_workers: int = 2,
        batch_size: int | None = None,
        features_col: Names = "features",
        label_col: Names | None = "label",
        sample_weight_col: Weights = None,
        class_weight: Mapping[int, float] | None = None,
        num_epoch: int = 1,
        seed: int | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        input_shape: Any = None,
        preprocess: Callable[..., Any] | None = None,
        pad_to: PadTo | None = None,
        drop_remainder: bool = False,
        quorum: int | None = None,
        grace: float = 0.0,
        num_parameter_servers: int = 1,
        compression: str | Codec | None = None,
        overlap: bool | int = False,
        schedule_steps: Literal["training", "local"] = "training",
        on_bad_update: Literal["raise", "skip"] | BadUpdates = "raise",
        on_lost_worker: Literal["wait", "proceed"] = "wait",
        server: ServerOptions | None = None,
        server_placement: str | Placement = "driver",
        resources: Resources | None = None,
        min_workers: int | None = None,
        max_workers: int | None = None,
        verbose: int | str = "auto",
        global_batch_size: int | None = None,
        regions: int | RegionServers | None = None,
    ) -> None:
        check_kinds(keras_model, algorithm)
        for name, value in (
            ("num_workers", num_workers),
            ("num_epoch", num_epoch),
            ("num_parameter_servers", num_parameter_servers),
        ):
            check_positive_integer(name, value)
        # Checks the arguments before any data is read.
        self.elastic = elastic_of(min_workers, max_workers, num_workers)
        check_resources(resources)
        self.resources = resources
        if self.independent and global_batch_size is not None:
            raise ValueError(
                "The members of an ensemble train alone: give `batch_size`. "
                f"Received: global_batch_size={global_batch_size!r}"
            )
        together = num_workers if self.elastic is None else self.elastic.max_workers
        self.batch_size = batch_size_of(batch_size, global_batch_size, together) or BATCH_SIZE
        if self.elastic is not None:  # The workers of the ledger are shares.
            check_elastic(algorithm)
            num_workers = self.elastic.num_shares
        overlap = check_overlap(overlap)
        self.regions = RegionServers.of(regions)
        CenterConfig(
            algorithm,
            num_workers,
            quorum=quorum,
            grace=grace,
            overlap=overlap,
            elastic=self.elastic,
            regions=self.regions,
            independent=self.independent,
        )
        check_choice("schedule_steps", schedule_steps, ("training", "local"))
        check_choice("on_lost_worker", on_lost_worker, ("wait", "proceed"))
        self.on_bad_update = bad_updates.get(on_bad_update)
        check_servers(num_parameter_servers, self.on_bad_update)
        check_regions(self.regions, num_parameter_servers, server)
        self.overlap = overlap
        self.schedule_steps = schedule_steps
        self.compression = codecs.get(compression)
        if self.compression is not None:
            check_compressible(algorithm.for_workers(num_workers))
        warn_without_codec(algorithm, self.compression)
        if metrics is None and loss is not None and len(getattr(keras_model, "outputs", None) or [loss]) == 1:
            metrics = ["accuracy"]
        self.keras_model = keras_model
        self.algorithm = algorithm
        self.num_workers = num_workers
        self.features_col = features_col
        self.label_col = label_col
        self.sample_weight_col = sample_weight_col
        self.class_weight = None if class_weight is None else ClassWeight.of(class_weight)
        self.feeding = Feeding(preprocess, pad_to, drop_remainder)
        self.num_epoch = num_epoch
        self._seeded = seed is not None
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.quorum = quorum
        self.grace = grace
        self.num_parameter_servers = num_parameter_servers
        self.on_lost_worker = on_lost_worker
        self.server = server or ServerOptions()
        self.server_placement = Placement.of(server_placement)
        self.verbose = checked_verbose(verbose)
        self.custom_objects = custom_objects
        self._given = GivenModel(
            keras_model, worker_optimizer, loss, metrics, loss_weights, custom_objects, input_shape
        )
        check_codec(self.compression, self._given.spec.layout)
        check_tensors(num_parameter_servers, algorithm, self._given.spec.layout)
        self._fragments = fragments_of(self._given.spec.layout, algorithm)
        check_fragments(self._fragments, algorithm, num_workers, overlap, num_parameter_servers)
        self._loss_names = loss_names(keras_model, loss)
        self._compiled = describe_compiled(keras_model, worker_optimizer, loss, loss_weights)
        check_optimizer(keras_model, worker_optimizer, algorithm, at_once(self), overlap)
        self._history = History()
        self._story = Story()
        self._num_updates = 0
        self._training_time = 0.0
        self._training: Training | None = None
        self._result: TrainingResult | None = None

    def __repr__(self) -> str:
        return call_of(self)

    @property
    def num_updates(self) -> int:
        """Number of commits to the center in the last training; a synchronous round counts once."""
        return Count(self._num_updates)

    @one_at_a_time
    def _run(
        self,
        data: TrainingData,
        shuffle: bool,
        around: Around,
        initial: Callable[[], Vector],
        arrange: Arrange | None = None,
        *,
        resume: Resume = False,
    ) -> list[keras.Model]:
        """Train on `data` and return the trained model, or those of all members of an ensemble.

        Args:
            data: as in `DistributedTrainer.train`.
            shuffle: as in `DistributedTrainer.train`.
            around: what goes around the training.
            initial: returns the first center, shape (size,), or (num_workers, size) for one independent
                center per worker.
            arrange: splits the prepared rows into the workers' partitions; returns them and their row counts.
            resume: as in `DistributedTrainer.train`.
        """
        if not isinstance(shuffle, bool):
            raise TypeError(
                "`shuffle` must be True or False; pass features and labels together, in a tuple: "
                f"train((x, y)). Received: shuffle of type {type(shuffle)}"
            )
        started = time.monotonic()
        self._history, self._story, self._num_updates, self._result = History(), Story(), 0, None
        self._training = Training(self, around, shuffle, initial, arrange, resume)
        models, self._num_updates = self._training.run(data)
        self._training_time = time.monotonic() - started
        self._result = self._training.result(self._training_time)
        if self._result.reason == "interrupt" and not around.in_place:
            warnings.warn(
                "Ctrl-C ended the training; `train` returns the model so far. Press Ctrl-C twice to cancel "
                "without a model.",
                UserWarning,
                stacklevel=levels_to_user(),
            )
        return models

    def _keras_history(self) -> keras.callbacks.History:
        """Return Keras's history of the last training, which had callbacks."""
        if self._training is None:
            raise RuntimeError("There was no training.")
        return self._training.keras_history()

    def _evaluate(self, model: keras.Model, data: TrainingData, batch_size: int | None) -> dict[str, float]:
        """Return loss and metrics of `model` over the rows of `data`: see `DistributedTrainer.evaluate`."""
        roles = Roles(self.features_col, self.label_col, self.sample_weight_col)
        with (
            about(f"{name_of(self)}, evaluation"),
            as_frame(data, roles, self.num_workers) as (frame, roles),
        ):
            check_python(frame.sparkSession, keras.backend.backend())
            return evaluate(
                model,
                frame,
                roles,
                num_partitions=self.num_workers,
                batch_size=batch_size or max(256, self.batch_size),
                feeding=self.feeding,
                custom_objects=self.custom_objects,
            )

    @one_at_a_time
    def check(
        self,
        dataframe: TrainingData,
        shuffle: bool = False,
        *,
        run: str | os.PathLike[str] | RunOptions | None = None,
        limit: float = 120.0,
    ) -> Diagnosis:
        """Return what stands in the way of `train` with these arguments, without starting it.

        It checks the data, Python and its packages on driver and executors, versions, slots, the way from
        every executor to the parameter server, clocks, disk, memory for this model, and GPUs. It takes
        seconds, besides one pass over the rows. See docs/doctor.md.

        Args:
            dataframe: as in `train`.
            shuffle: as in `train`.
            run: as in `train`; the folder is tried, and nothing is left there.
            limit: seconds to wait for executors.

        Example:
            ```python
            trainer.check(df).raise_if_bad()
            ```
        """
        with about(f"{title_of(self)}, check"):
            return check(self, dataframe, shuffle, run, limit)

    def stop(self) -> None:
        """End the running training within a window, from another thread or from a callback.

        `train` then returns the model so far. Without a running training, this does nothing.
        """
        if self._training is not None:
            self._training.stop.set("stop", "`stop` was called")

    @property
    def result(self) -> TrainingResult | None:
        """Why and how the last training ended; `None` before its end, and after an error."""
        return self._result

    def interrupted_model(self) -> keras.Model:
        """Return the model of a training that ended with an error, with the last center that could be had.

        It is the trained model, if only the run directory could not be completed; else the one at the end, if
        the server could still be asked; else that of the last snapshot.

        Raises:
            RuntimeError: no training has ended with an error, or it has no address for snapshots.
            RunError: there was no snapshot yet.
        """
        training = self._training
        if training is not None and training.is_complete and self._result is None:
            return training.models[0]
        if training is not None and training.last:
            return self._given.trained(training.last[0])
        snapshots = None if training is None else training.snapshots
        if snapshots is None or snapshots.address is None:
            raise RuntimeError(
                "There is no center and no snapshot of an interrupted training. Snapshots need an address: "
                "train(..., run=...) or ServerOptions(snapshots=SnapshotOptions(...))."
            )
        model = self._given.trained(self._given.first_vector())
        return with_snapshot(model, snapshots.address, member=0, storage_options=snapshots.storage_options)

    def _settings(self, shuffle: bool, num_rows: int) -> dict[str, Any]:
        return settings_of(self, self._given.spec.layout, self._compiled, shuffle, num_rows)

    def _prepare(
        self, frame: DataFrame, roles: Roles, shuffle: bool, num_partitions: int, *, with_content: bool
    ) -> Prepared:
        """Prepare rows to train on."""
        return self._prepare_rows(
            frame,
            roles,
            num_partitions,
            feeding=self.feeding,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            class_weight=self.class_weight,
            barrier=self.algorithm.synchronous,
            with_content=with_content,
        )

    def _prepare_rows(
        self, frame: DataFrame, roles: Roles, num_partitions: int, *, feeding: Feeding, **further: Any
    ) -> Prepared:
        """Prepare rows for the model; `further` are the other arguments of `prepare`."""
        inputs, outputs = model_signature(self.keras_model)
        check_strings(inputs)
        return prepare(
            frame,
            roles,
            inputs=inputs,
            outputs=outputs,
            loss=self._loss_names,
            num_workers=num_partitions,
            feeding=feeding,
            **further,
        )

    def get_training_time(self) -> float:
        """Duration of the last `train` in seconds: preparation, start of the workers and training."""
        return self._training_time

    def get_history(self) -> History:
        """The windows of the last training, in the order in which the center applied them."""
        return self._history

    def get_transitions(self) -> list[Transition]:
        """The last thousand state transitions of the last or the running training, the oldest first.

        They cover workers, parameter servers, rounds, snapshots and the job itself.
        """
        return self._story.transitions()

    def get_averaged_history(self) -> list[Averaged]:
        """One record per iteration, averaged over all workers."""
        return self._history.averaged()

    def get_executor_history(self, executor_id: int) -> History:
        """The windows of one worker."""
        return self._history.executor(executor_id)
