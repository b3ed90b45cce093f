"""What all trainers share: the model, the data, the run, and what it leaves behind."""

from __future__ import annotations

import inspect
import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.algorithms.stability import warn_if_unstable
from distkeras.center import BadUpdates, CenterConfig, bad_updates
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, check_full, prepare
from distkeras.cluster.job import Job, Outcome
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.probe import check_python
from distkeras.cluster.process import Process
from distkeras.cluster.resume import Interrupted, find_interrupted
from distkeras.cluster.server import launched
from distkeras.cluster.settings import result_limit
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.validate import Names, Weights, check_last_batch
from distkeras.events import Event, ServerRestored, Window
from distkeras.gone import Count, WithoutOldNames, named_arguments
from distkeras.model.optimizer import finalize, set_values
from distkeras.model.spec import first_vector, freeze, local_state, thaw
from distkeras.model.variables import tree_of
from distkeras.model.weights import set_vector
from distkeras.monitor.progress import ProgressBar
from distkeras.trainers.alone import one_at_a_time
from distkeras.trainers.defaults import ChangedDefaultWarning, changed_default
from distkeras.trainers.fingerprint import (
    describe_algorithm,
    describe_columns,
    describe_compiled,
    describe_model,
)
from distkeras.trainers.history import Averaged, History
from distkeras.trainers.losses import loss_names
from distkeras.wire import codecs
from distkeras.wire.codecs import Codec
from distkeras.wire.compression import check_compressible
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.columns import Columns
from distkeras.worker.ending import Ending
from distkeras.worker.evaluate import set_metrics
from distkeras.worker.feeding import Feeding
from distkeras.worker.nesterov import check_no_momentum
from distkeras.worker.padding import PadTo
from distkeras.worker.signature import check_strings, model_signature
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Arrange = Callable[["DataFrame"], tuple["DataFrame", tuple[int, ...]]]


logger = logging.getLogger(__name__)


class UnstableWarning(UserWarning):
    """The theory of the rule says that training will diverge at these parameters."""


class Trainer(WithoutOldNames):
    """Abstract: runs a rule on Spark and keeps the history. `DistributedTrainer` documents the arguments."""

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
        num_parameter_servers: int = 1,
        compression: str | Codec | None = None,
        overlap: bool = False,
        schedule_steps: Literal["training", "local"] = "training",
        on_bad_update: Literal["raise", "skip"] | BadUpdates = "raise",
        on_lost_worker: Literal["wait", "proceed"] = "wait",
        server: ServerOptions | None = None,
        verbose: int | str = "auto",
    ) -> None:
        if not isinstance(keras_model, keras.Model):
            raise TypeError(f"`keras_model` must be a Keras model. Received: {type(keras_model)}")
        if not isinstance(algorithm, Algorithm):
            raise TypeError(
                "`algorithm` must be an instance of a distkeras.algorithms.Algorithm, such as "
                f"algorithms.ADAG(communication_window=12). Received: algorithm={algorithm!r}"
            )
        for name, value in (
            ("num_workers", num_workers),
            ("batch_size", batch_size),
            ("num_epoch", num_epoch),
            ("num_parameter_servers", num_parameter_servers),
        ):
            check_positive_integer(name, value)
        CenterConfig(algorithm, num_workers, quorum=quorum)  # Refuses what does not fit, before any data.
        if num_parameter_servers > 1 and quorum not in (None, num_workers):
            raise ValueError(
                "A quorum needs one parameter server: each of several would complete its round with others. "
                f"Received: quorum={quorum}, num_parameter_servers={num_parameter_servers}"
            )
        if schedule_steps not in ("training", "local"):
            raise ValueError(
                f'`schedule_steps` must be "training" or "local". Received: schedule_steps={schedule_steps!r}'
            )
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
        self.num_parameter_servers = num_parameter_servers
        self.on_bad_update = bad_updates.get(on_bad_update)
        if num_parameter_servers > 1 and self.on_bad_update.max_norm is not None:
            raise ValueError(
                "`max_norm` needs one parameter server: each of several sees a part of the message. "
                f"Received: on_bad_update={on_bad_update!r}, num_parameter_servers={num_parameter_servers}"
            )
        if on_lost_worker not in ("wait", "proceed"):
            raise ValueError(
                f'`on_lost_worker` must be "wait" or "proceed". Received: on_lost_worker={on_lost_worker!r}'
            )
        self.on_lost_worker = on_lost_worker
        self.server = server or ServerOptions()
        self.verbose = verbose
        self.custom_objects = custom_objects
        self._freeze = partial(
            freeze, keras_model, worker_optimizer, loss, metrics, loss_weights, custom_objects, input_shape
        )
        self._spec = self._freeze()
        self._check_layout()
        self._local_state = local_state(keras_model, self._spec.layout)
        self._loss_names = loss_names(keras_model, loss)
        self._compiled = describe_compiled(keras_model, worker_optimizer, loss, loss_weights)
        self._check_optimizer(worker_optimizer)
        self._history = History()
        self._num_updates = 0
        self._training_time = 0.0

    @property
    def num_updates(self) -> int:
        """Commits that the center took in the last training; a synchronous round counts once."""
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
        """Train on `data` from the first center, or centers, `initial`.

        Returns:
            What the job leaves, and how rows became the model's inputs and labels.

        Args:
            data: as in `DistributedTrainer.train`.
            shuffle: as in `DistributedTrainer.train`.
            initial: shape (size,), or (num_workers, size) for a center of its own for every worker.
            arrange: makes the workers' partitions of the prepared rows, and says how many rows each gets.
            resume: as in `DistributedTrainer.train`.
        """
        if not isinstance(shuffle, bool):
            raise TypeError(
                "`shuffle` must be True or False; features and labels go together, in a tuple: "
                f"train((x, y)). Received: shuffle of type {type(shuffle)}"
            )
        started = time.monotonic()
        self._history, self._num_updates = History(), 0
        interrupted = find_interrupted(self.server, resume)
        if interrupted is not None and not self._seeded:
            self.seed = interrupted.settings["seed"]
        num_partitions = self.num_workers if arrange is None else 1
        roles = Roles(self.features_col, self.label_col, self.sample_weight_col)
        with (
            launched(self.num_parameter_servers) as processes,
            as_frame(data, roles, num_partitions) as (frame, roles),
        ):
            # Before the rows, which may come from Python already.
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
        settings = self._settings(shuffle, rows) | {"data": frame.schema.simpleString()}
        if interrupted is not None:
            interrupted.check(settings)
        job = Job(
            model=self._spec,
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
        )
        rest = self.batch_size if self.feeding.drop_remainder else 1
        total = sum(count - count % rest for count in rows) * self.num_epoch
        with ProgressBar(type(self).__name__, total, show=_shown(self.verbose)) as bar:

            def take(event: Event) -> None:
                bar(event)
                if isinstance(event, Window):
                    self._history.append(event)
                if isinstance(event, ServerRestored):
                    self._history.roll_back(event.commits)

            return job.run(take)

    def _center(self, initial: Vector) -> CenterConfig:
        return CenterConfig(
            self.algorithm,
            self.num_workers,
            num_trainable=self._spec.layout.num_trainable,
            quorum=self.quorum,
            overlap=self.overlap,
            bad_updates=self.on_bad_update,
            without_lost=self.on_lost_worker == "proceed",
            independent=initial.ndim == 2,
            dtype=initial.dtype.name,
            layout=self._spec.fingerprint,
        )

    def _settings(self, shuffle: bool, rows: tuple[int, ...]) -> dict[str, Any]:
        """What decides which minibatch is which, and what the center is: a resumed training has the same."""
        layout = self._spec.layout
        return {
            "algorithm": describe_algorithm(self.algorithm.for_workers(self.num_workers)),
            "batch_size": self.batch_size,
            "compression": repr(self.compression),
            "drop_remainder": self.feeding.drop_remainder,
            "num_epoch": self.num_epoch,
            "num_parameter_servers": self.num_parameter_servers,
            "num_workers": self.num_workers,
            "overlap": self.overlap,
            "pad_to": repr(self.feeding.pad_to),
            "quorum": self.quorum,
            "rows": list(rows),
            "seed": self.seed,
            "schedule_steps": self.schedule_steps,
            "shuffle": shuffle,
            "weights": [[segment.path, list(segment.shape)] for segment in layout.segments()],
            "model": describe_model(self.keras_model),
            **self._compiled,
            **describe_columns(
                features_col=self.features_col,
                label_col=self.label_col,
                sample_weight_col=self.sample_weight_col,
                class_weight=None if self.class_weight is None else asdict(self.class_weight),
            ),
        }

    def _check_optimizer(self, worker_optimizer: str | keras.optimizers.Optimizer | None) -> None:
        if worker_optimizer is None:
            optimizer = self.keras_model.optimizer
        else:
            optimizer = keras.optimizers.get(worker_optimizer)
        check_no_momentum(optimizer, self.algorithm)
        changed = changed_default(worker_optimizer)
        if changed is not None:
            warnings.warn(changed, ChangedDefaultWarning, stacklevel=_levels_to_user())
        rate = optimizer.get_config().get("learning_rate") if optimizer is not None else None
        if isinstance(rate, float | int):  # A schedule has no one rate.
            warning = warn_if_unstable(self.algorithm, self.num_workers, float(rate))
            if warning is not None:
                warnings.warn(warning, UnstableWarning, stacklevel=_levels_to_user())

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
        )

    def _check_layout(self) -> None:
        if self._spec.layout.dtype != "float32" and self.compression is not None:
            raise ValueError(
                "Weights of float64 travel as they are: use `compression=None`, or a model of float32. "
                f"Received: compression={self.compression!r}"
            )

    def _first_vector(self) -> Vector:
        """Return the model's weights as they are now. What does not move goes out with the model: anew, where
        it has changed since the trainer was made."""
        if local_state(self.keras_model, self._spec.layout) != self._local_state:
            self._spec = self._freeze()
            self._local_state = local_state(self.keras_model, self._spec.layout)
        return first_vector(self.keras_model, self._spec)

    def _model_with(
        self,
        center: Vector,
        own: Ending | None = None,
        columns: Columns | None = None,
        others: Sequence[Ending] = (),
    ) -> keras.Model:
        """Return a new, compiled model as `fit` leaves it.

        Args:
            center: its weights, shape (size,).
            own: of the worker whose local state it gets.
            columns: what it was trained on.
            others: of workers whose metrics count too.
        """
        model = thaw(self._spec)
        own = own or Ending()
        cells = tree_of(model).variables
        for path, value in own.variables.items():
            cells[path].assign(value)
        if own.too_large:
            logger.warning(
                "The optimizer's state of %.0f MB stays in the worker, and the trained model has a new one. "
                "To have it, raise spark.driver.maxResultSize to more than twice that.",
                own.too_large / 1e6,
            )
        if own.optimizer:
            set_values(model.optimizer, tuple(own.optimizer))
        set_vector(model, center, self._spec.layout)
        if model.optimizer is not None:
            finalize(model)
        if own.metrics and columns is not None:
            set_metrics(model, columns, self.batch_size, [own.metrics, *(each.metrics for each in others)])
        return model

    def get_training_time(self) -> float:
        """Seconds that the last `train` took, all of it: preparation, start of the workers, training."""
        return self._training_time

    def get_history(self) -> History:
        """The windows of the last training, in the order in which the center took them."""
        return self._history

    def get_averaged_history(self) -> list[Averaged]:
        """One record an iteration, averaged over all workers."""
        return self._history.averaged()

    def get_executor_history(self, executor_id: int) -> History:
        """The windows of one worker."""
        return self._history.executor(executor_id)


def check_positive_integer(name: str, value: object) -> None:
    """Raise ValueError unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


def _levels_to_user() -> int:
    """How far up the stack the first line is that is not of this project."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("distkeras."):
        level, frame = level + 1, frame.f_back
    return level


def _shown(verbose: int | str) -> bool | None:
    return None if verbose == "auto" else bool(verbose)
