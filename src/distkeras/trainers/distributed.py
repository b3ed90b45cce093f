"""The trainer of any rule: a Keras model, a DataFrame and a distributed optimizer in, a trained model out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from distkeras.algorithms import Algorithm
from distkeras.cluster.data import prepare
from distkeras.cluster.job import Job
from distkeras.cluster.server import ServerOptions
from distkeras.events import Event, Window
from distkeras.monitor.progress import ProgressBar
from distkeras.trainers.history import Averaged, History
from distkeras.worker.model import freeze, initial_vector, layout_of, set_vector, thaw
from distkeras.worker.signature import model_signature
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

logger = logging.getLogger(__name__)

Names = str | Sequence[str] | Mapping[str, str]
"""One column, several in the order of the model's inputs or outputs, or by layer name."""


class DistributedTrainer:
    """Trains a Keras model on a Spark DataFrame with `num_workers` replicas and any distributed optimizer.

    Each worker is a Spark task that trains its partition, and exchanges weights with a parameter server once
    a communication window. A worker whose process dies is started again by Spark and goes on after its last
    committed window; an exception in a worker ends the training and is raised here, with its traceback.

    Args:
        keras_model: any Keras 3 model. It is left as it is.
        algorithm: the distributed optimizer: an instance of a rule in `distkeras.algorithms`, or of your own
            subclass of `distkeras.algorithms.Algorithm`.
        worker_optimizer: the optimizer inside each worker: a name, a Keras optimizer (each worker makes a
            fresh one of its configuration), or None for the one that the model is compiled with.
        loss: a name, a Keras loss or a function, a list or dict of them; None for the compiled one.
        metrics: as `keras.Model.compile` takes them. Default: accuracy, or the compiled ones where the loss
            is the compiled one.
        loss_weights: as `keras.Model.compile` takes them.
        num_workers: replicas, one a Spark task.
        batch_size: rows in a minibatch of one worker.
        features_col: column of the model's input; a list for several inputs, a dict by layer name.
        label_col: column of the labels, likewise.
        num_epoch: passes over the data.
        seed: of shuffling and of rows' way to workers. Default: a random one.
        custom_objects: classes and functions of the model that are not registered with Keras, by name.
        quorum: for synchronous rules: messages that complete a round. Default: one of every worker.
        server: where the parameter server listens.
        verbose: 0: silent; 1: a progress bar; "auto": a bar where there is a terminal or a notebook.

    Raises:
        TypeError: `keras_model` is no Keras model, or `algorithm` no rule.
        ValueError: a count that is not a positive integer, a model that is neither built nor can be, an
            optimizer or loss that is missing.

    Example:
        ```python
        trainer = DistributedTrainer(model, algorithms.DynSGD(), "adam", "mse", num_workers=4)
        trained = trainer.train(df)
        ```
    """

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
        label_col: Names = "label",
        num_epoch: int = 1,
        seed: int | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        quorum: int | None = None,
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
        ):
            check_positive_integer(name, value)
        if metrics is None and loss is not None:
            metrics = ["accuracy"]
        self.keras_model = keras_model
        self.algorithm = algorithm
        self.num_workers = num_workers
        self.batch_size = batch_size
        self.features_col = features_col
        self.label_col = label_col
        self.num_epoch = num_epoch
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.quorum = quorum
        self.server = server or ServerOptions()
        self.verbose = verbose
        self._spec = freeze(keras_model, worker_optimizer, loss, metrics, loss_weights, custom_objects)
        self._history = History()
        self._num_updates = 0
        self._training_time = 0.0

    @property
    def num_updates(self) -> int:
        """Commits that the center took in the last training; a synchronous round counts once."""
        return self._num_updates

    def train(self, dataframe: DataFrame, shuffle: bool = False) -> keras.Model:
        """Train on `dataframe` and return a new, compiled Keras model with the center's weights.

        Args:
            dataframe: the rows. The plan is evaluated twice: once to check and count them, once to train.
                Cache it where that is expensive, or where it is not deterministic.
            shuffle: deal the rows to the workers at random, and visit them in another order every epoch.
                Default: in the order in which they come.

        Raises:
            ValueError, TypeError: data that does not fit model and loss; before any worker starts.
            WorkerError: an exception in a worker, with its traceback.
        """
        started = time.monotonic()
        self._history = History()
        inputs, outputs = model_signature(self.keras_model)
        prepared = prepare(
            dataframe,
            features_col=self.features_col,
            label_col=self.label_col,
            inputs=inputs,
            outputs=outputs,
            loss=loss_names(self._spec.settings.get("loss")),
            num_workers=self.num_workers,
            shuffle=shuffle,
            seed=self.seed,
        )
        job = Job(
            task=Task(
                model=self._spec,
                algorithm=self.algorithm,
                columns=prepared.columns,
                batch_size=self.batch_size,
                num_epoch=self.num_epoch,
                shuffle=shuffle,
                seed=self.seed,
            ),
            frame=prepared.frame,
            initial=initial_vector(self.keras_model),
            num_trainable=layout_of(self.keras_model).num_trainable,
            num_workers=self.num_workers,
            backend=keras.backend.backend(),
            quorum=self.quorum,
            options=self.server,
        )
        total = prepared.num_rows * self.num_epoch
        with ProgressBar(type(self).__name__, total, show=_shown(self.verbose)) as bar:

            def take(event: Event) -> None:
                bar(event)
                if isinstance(event, Window):
                    self._history.append(event)

            pulled = job.run(take)
        trained = thaw(self._spec)
        set_vector(trained, pulled.center)
        self._num_updates = pulled.num_updates
        self._training_time = time.monotonic() - started
        return trained

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


def _shown(verbose: int | str) -> bool | None:
    return None if verbose == "auto" else bool(verbose)
