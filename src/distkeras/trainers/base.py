"""The base class of all trainers: it checks the arguments, runs the job and keeps the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import keras
import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.center import BadUpdates, CenterConfig, bad_updates, fragments_of
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, check_full, prepare
from distkeras.cluster.job import Job, Outcome
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.probe import check_python
from distkeras.cluster.process import Process
from distkeras.cluster.resume import Interrupted, find_interrupted
from distkeras.cluster.server import launched
from distkeras.cluster.settings import result_limit
from distkeras.cluster.story import Story, Transition
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.validate import Names, Weights, check_last_batch
from distkeras.events import Event, ServerRestored, Window
from distkeras.monitor.progress import ProgressBar
from distkeras.removed_names import Count, WithoutOldNames, named_arguments
from distkeras.trainers.checks import (
    check_choice,
    check_codec,
    check_fragments,
    check_kinds,
    check_optimizer,
    check_overlap,
    check_positive_integer,
    check_servers,
    check_tensors,
)
from distkeras.trainers.exclusive import one_at_a_time
from distkeras.trainers.fingerprint import describe_compiled, settings_of
from distkeras.trainers.given import GivenModel
from distkeras.trainers.history import Averaged, History
from distkeras.trainers.losses import loss_names
from distkeras.wire import codecs
from distkeras.wire.codecs import Codec
from distkeras.wire.compression import check_compressible
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import Columns
from distkeras.worker.feeding import Feeding
from distkeras.worker.padding import PadTo
from distkeras.worker.signature import check_strings, model_signature
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Arrange = Callable[["DataFrame"], tuple["DataFrame", tuple[int, ...]]]


class Trainer(WithoutOldNames):
    """Abstract: runs an algorithm on Spark and keeps the history. `DistributedTrainer` has the arguments."""

    compared: ClassVar[tuple[str, ...]] = ()
    """Further attributes of a trainer that must be equal in a resumed training."""

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
        batch_size: int = 32,
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
        verbose: int | str = "auto",
    ) -> None:
        check_kinds(keras_model, algorithm)
        for name, value in (
            ("num_workers", num_workers),
            ("batch_size", batch_size),
            ("num_epoch", num_epoch),
            ("num_parameter_servers", num_parameter_servers),
        ):
            check_positive_integer(name, value)
        # Checks the arguments before any data is read.
        overlap = check_overlap(overlap)
        CenterConfig(algorithm, num_workers, quorum=quorum, grace=grace, overlap=overlap)
        check_choice("schedule_steps", schedule_steps, ("training", "local"))
        check_choice("on_lost_worker", on_lost_worker, ("wait", "proceed"))
        self.on_bad_update = bad_updates.get(on_bad_update)
        check_servers(num_parameter_servers, self.on_bad_update)
        self.overlap = overlap
        self.schedule_steps = schedule_steps
        self.compression = codecs.get(compression)
        if self.compression is not None:
            check_compressible(algorithm.for_workers(num_workers))
        if metrics is None and loss is not None and len(getattr(keras_model, "outputs", None) or [loss]) == 1:
            metrics = ["accuracy"]
        self.keras_model = keras_model
        self.algorithm = algorithm
        self.num_workers = num_workers
        self.batch_size = batch_size
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
        self.verbose = verbose
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
        check_optimizer(keras_model, worker_optimizer, algorithm, num_workers)
        self._history = History()
        self._story = Story()
        self._num_updates = 0
        self._training_time = 0.0

    @property
    def num_updates(self) -> int:
        """Number of commits to the center in the last training; a synchronous round counts once."""
        return Count(self._num_updates)

    @one_at_a_time
    def _run(
        self,
        data: TrainingData,
        shuffle: bool,
        initial: Vector,
        arrange: Arrange | None = None,
        *,
        resume: bool = False,
    ) -> tuple[Outcome, Columns]:
        """Train on `data` from the initial center, or centers, `initial`.

        Returns:
            The outcome of the job, and the columns that hold the model's inputs and labels.

        Args:
            data: as in `DistributedTrainer.train`.
            shuffle: as in `DistributedTrainer.train`.
            initial: shape (size,), or (num_workers, size) for one independent center per worker.
            arrange: splits the prepared rows into the workers' partitions; returns them and their row counts.
            resume: as in `DistributedTrainer.train`.
        """
        if not isinstance(shuffle, bool):
            raise TypeError(
                "`shuffle` must be True or False; pass features and labels together, in a tuple: "
                f"train((x, y)). Received: shuffle of type {type(shuffle)}"
            )
        started = time.monotonic()
        self._history, self._story, self._num_updates = History(), Story(), 0
        interrupted = find_interrupted(self.server, resume)
        if interrupted is not None and not self._seeded:
            self.seed = interrupted.settings["seed"]
        num_partitions = self.num_workers if arrange is None else 1
        roles = Roles(self.features_col, self.label_col, self.sample_weight_col)
        with (
            launched(self.num_parameter_servers) as processes,
            as_frame(data, roles, num_partitions) as (frame, roles),
        ):
            # Check Python before the first job: evaluating the rows may already run Python code.
            check_python(frame.sparkSession, keras.backend.backend())
            prepared = self._prepare(frame, roles, shuffle, num_partitions)
            outcome = self._job(prepared, shuffle, initial, arrange, interrupted, processes)
        self._num_updates = outcome.num_updates
        self._training_time = time.monotonic() - started
        return outcome, prepared.columns

    def _job(
        self,
        prepared: Prepared,
        shuffle: bool,
        initial: Vector,
        arrange: Arrange | None,
        interrupted: Interrupted | None,
        processes: list[Process],
    ) -> Outcome:
        frame, rows = prepared.frame, prepared.rows_per_partition
        if arrange is not None:
            frame, rows = arrange(frame)
            inputs, _ = model_signature(self.keras_model)
            check_last_batch(inputs, self.batch_size, rows, self.feeding.drop_remainder)
        if self.feeding.drop_remainder:
            check_full(rows, self.batch_size)
        settings = self._settings(shuffle, sum(rows)) | {"data": frame.schema.simpleString()}
        if prepared.content is not None:
            settings["digest of the rows"] = prepared.content
        if interrupted is not None:
            interrupted.check(settings)
        job = Job(
            model=self._given.spec,
            task=Task(
                center=self._center(initial),
                columns=prepared.columns,
                rows=rows,
                batch_size=self.batch_size,
                num_epoch=self.num_epoch,
                shuffle=shuffle,
                seed=self.seed,
                schedules_follow_training=self.schedule_steps == "training" and initial.ndim == 1,
                state_of=(0,) if initial.ndim == 1 else tuple(range(self.num_workers)),
                largest_state=result_limit(frame.sparkSession)
                // 2
                // (1 if initial.ndim == 1 else self.num_workers),
                drop_remainder=self.feeding.drop_remainder,
            ),
            frame=frame,
            initial=initial,
            backend=keras.backend.backend(),
            num_servers=self.num_parameter_servers,
            options=self.server,
            settings=settings,
            resume=None if interrupted is None else interrupted.next,
            launched=processes,
            compression=self.compression,
            story=self._story,
        )
        rest = self.batch_size if self.feeding.drop_remainder else 1
        total = sum(count - count % rest for count in rows) * self.num_epoch
        with ProgressBar(
            type(self).__name__, total, show=None if self.verbose == "auto" else bool(self.verbose)
        ) as bar:

            def take(event: Event) -> None:
                bar(event)
                if isinstance(event, Window) and event.steps:  # The last commits of fragments may have none.
                    self._history.append(event)
                if isinstance(event, ServerRestored):
                    self._history.roll_back(event.commits)

            return job.run(take)

    def _center(self, initial: Vector) -> CenterConfig:
        return CenterConfig(
            self.algorithm,
            self.num_workers,
            num_trainable=self._given.spec.layout.num_trainable,
            quorum=self.quorum,
            grace=self.grace,
            overlap=self.overlap,
            bad_updates=self.on_bad_update,
            without_lost=self.on_lost_worker == "proceed",
            independent=initial.ndim == 2,
            dtype=initial.dtype.name,
            layout=self._given.spec.fingerprint,
            tensors=self._given.spec.layout.tensors,
            fragments=self._fragments,
        )

    def _settings(self, shuffle: bool, num_rows: int) -> dict[str, Any]:
        return settings_of(self, self._given.spec.layout, self._compiled, shuffle, num_rows)

    def _prepare(self, frame: DataFrame, roles: Roles, shuffle: bool, num_partitions: int) -> Prepared:
        inputs, outputs = model_signature(self.keras_model)
        check_strings(inputs)
        return prepare(
            frame,
            roles,
            inputs=inputs,
            outputs=outputs,
            loss=self._loss_names,
            num_workers=num_partitions,
            shuffle=shuffle,
            seed=self.seed,
            batch_size=self.batch_size,
            class_weight=self.class_weight,
            barrier=self.algorithm.synchronous,
            feeding=self.feeding,
            with_content=self.server.resumable,
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
