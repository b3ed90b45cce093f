"""What all trainers share: the model, the data, the run, and what it leaves behind."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Mapping
from subprocess import Popen
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from distkeras.algorithms import Algorithm, Vector
from distkeras.algorithms.stability import warn_if_unstable
from distkeras.center import BadUpdates, bad_updates, check_quorum
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, prepare
from distkeras.cluster.job import Job, Outcome
from distkeras.cluster.options import ServerOptions
from distkeras.cluster.resume import Interrupted, find_interrupted
from distkeras.cluster.server import launched
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.validate import Names
from distkeras.events import Event, ServerRestored, Window
from distkeras.gone import Count, WithoutOldNames, named_arguments
from distkeras.model.spec import freeze, layout_of, set_vector, thaw
from distkeras.monitor.progress import ProgressBar
from distkeras.trainers.defaults import ChangedDefaultWarning, changed_default
from distkeras.trainers.history import Averaged, History
from distkeras.trainers.losses import loss_names
from distkeras.wire import codecs
from distkeras.wire.codecs import Codec
from distkeras.worker.class_weight import ClassWeight
from distkeras.worker.compress import check_compressible
from distkeras.worker.nesterov import check_no_momentum
from distkeras.worker.signature import check_strings, model_signature
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

Arrange = Callable[["DataFrame"], tuple["DataFrame", tuple[int, ...]]]


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
        sample_weight_col: str | None = None,
        class_weight: Mapping[int, float] | None = None,
        num_epoch: int = 1,
        seed: int | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        input_shape: Any = None,
        quorum: int | None = None,
        num_parameter_servers: int = 1,
        compression: str | Codec | None = None,
        overlap: bool = False,
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
        check_quorum(algorithm, num_workers, quorum)
        if num_parameter_servers > 1 and quorum not in (None, num_workers):
            raise ValueError(
                "A quorum needs one parameter server: each of several would complete its round with others. "
                f"Received: quorum={quorum}, num_parameter_servers={num_parameter_servers}"
            )
        self.overlap = overlap
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
        self._spec = freeze(
            keras_model, worker_optimizer, loss, metrics, loss_weights, custom_objects, input_shape
        )
        self._loss_names = loss_names(keras_model, loss)
        self._check_optimizer(worker_optimizer)
        self._history = History()
        self._num_updates = 0
        self._training_time = 0.0

    @property
    def num_updates(self) -> int:
        """Commits that the center took in the last training; a synchronous round counts once."""
        return Count(self._num_updates)

    def _run(
        self,
        data: TrainingData,
        shuffle: bool,
        initial: Vector,
        arrange: Arrange | None = None,
        *,
        resume: bool = False,
    ) -> Vector:
        """Train on `data` from the first center, or centers, `initial`; return the last.

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
            prepared = self._prepare(frame, roles, shuffle, num_partitions)
            outcome = self._job(prepared, shuffle, initial, arrange, interrupted, processes)
        self._num_updates = outcome.num_updates
        self._training_time = time.monotonic() - started
        return outcome.center

    def _job(
        self,
        prepared: Prepared,
        shuffle: bool,
        initial: Vector,
        arrange: Arrange | None,
        interrupted: Interrupted | None,
        processes: list[Popen[bytes]],
    ) -> Outcome:
        frame, rows = prepared.frame, prepared.rows_per_partition
        if arrange is not None:
            frame, rows = arrange(frame)
        settings = self._settings(shuffle, rows)
        if interrupted is not None:
            interrupted.check(settings)
        job = Job(
            task=Task(
                model=self._spec,
                algorithm=self.algorithm.for_workers(self.num_workers),
                columns=prepared.columns,
                rows=rows,
                batch_size=self.batch_size,
                num_epoch=self.num_epoch,
                shuffle=shuffle,
                seed=self.seed,
                compression=self.compression,
                overlap=self.overlap,
            ),
            frame=frame,
            initial=initial,
            num_trainable=layout_of(self.keras_model).num_trainable,
            num_workers=self.num_workers,
            backend=keras.backend.backend(),
            quorum=self.quorum,
            num_servers=self.num_parameter_servers,
            options=self.server,
            settings=settings,
            resume=None if interrupted is None else interrupted.next,
            bad_updates=self.on_bad_update,
            without_lost=self.on_lost_worker == "proceed",
            launched=processes,
        )
        total = sum(rows) * self.num_epoch
        with ProgressBar(type(self).__name__, total, show=_shown(self.verbose)) as bar:

            def take(event: Event) -> None:
                bar(event)
                if isinstance(event, Window):
                    self._history.append(event)
                if isinstance(event, ServerRestored):
                    self._history.roll_back(event.commits)

            return job.run(take)

    def _settings(self, shuffle: bool, rows: tuple[int, ...]) -> dict[str, Any]:
        """What decides which minibatch is which, and what the center is: a resumed training has the same."""
        layout = layout_of(self.keras_model)
        return {
            "algorithm": repr(self.algorithm.for_workers(self.num_workers)),
            "batch_size": self.batch_size,
            "compression": repr(self.compression),
            "num_epoch": self.num_epoch,
            "num_parameter_servers": self.num_parameter_servers,
            "num_workers": self.num_workers,
            "overlap": self.overlap,
            "quorum": self.quorum,
            "rows": list(rows),
            "seed": self.seed,
            "shuffle": shuffle,
            "weights": [list(slot.shape) for slot in layout.slots()],
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
        )

    def _model_with(self, center: Vector) -> keras.Model:
        """Return a new, compiled model with the weights of `center`."""
        model = thaw(self._spec)
        set_vector(model, center)
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
