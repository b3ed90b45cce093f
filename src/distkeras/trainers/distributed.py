"""The trainer for any algorithm: it trains a Keras model on a DataFrame with a distributed optimizer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distkeras.cluster.tables import rows_up_to
from distkeras.lifecycle.around import Around, around_of
from distkeras.monitor.monitors import Given, monitors_of
from distkeras.trainers.base import Trainer
from distkeras.trainers.given import GivenModel

if TYPE_CHECKING:
    import os

    import keras

    from distkeras.cluster.tables import TrainingData
    from distkeras.lifecycle.around import Where
    from distkeras.lifecycle.keeping import Resume
    from distkeras.lifecycle.stop_when import StopWhen
    from distkeras.runs import RunOptions


class DistributedTrainer(Trainer):
    """Trains a Keras model on a Spark DataFrame with `num_workers` replicas and any distributed optimizer.

    Each worker is a Spark task. It trains on its partition and exchanges weights with a parameter server once
    per communication window. If a worker's process dies, Spark restarts the worker, and it resumes after its
    last committed window. An exception in a worker ends the training and is raised here, with its traceback.

    Args:
        keras_model: any Keras 3 model. Training does not change it.
        algorithm: the distributed optimizer: an instance of a class in `distkeras.algorithms`, or of your own
            subclass of `distkeras.algorithms.Algorithm`.
        worker_optimizer: the optimizer inside each worker: a name, a Keras optimizer (each worker creates a
            new one from its configuration), or None for the optimizer that the model is compiled with. If the
            model has been trained, that optimizer keeps its state.
        loss: a name, a Keras loss, a function, or a list or dict of them; None for the compiled loss.
        metrics: as `keras.Model.compile` takes them. Default: the compiled metrics if `loss` is None; else
            accuracy, for models with one output.
        loss_weights: as `keras.Model.compile` takes them.
        num_workers: number of replicas; each is one Spark task.
        batch_size: rows in a minibatch of one worker. Default: 32.
        features_col: column of the model's input; a list for several inputs, or a dict by layer name. For a
            model with one input, the columns of a list are concatenated in order.
        label_col: column of the labels, in the same forms.
        sample_weight_col: column of the weights of the rows' losses: a number per row, or an array with one
            number for each position of the output, such as a time step. For several outputs, a list or dict
            as for `label_col`, with `None` or no entry for outputs without weights. Default: no weights.
        class_weight: weight of a row's loss by the class of its label, such as `{0: 1.0, 1: 5.0}`; other
            classes have weight 1. Class weights multiply sample weights. For models with one output.
        num_epoch: passes over the data.
        seed: of shuffling and of the assignment of rows to workers. Default: a random seed.
        custom_objects: classes and functions of the model that are not registered with Keras, by name.
        input_shape: shape with the batch dimension, such as (None, 784), to build a model that is not built
            yet. This is the only change that a trainer ever makes to `keras_model`.
        preprocess: your function that makes each minibatch in the worker. It takes a dict of the columns of
            features, labels and weights by name, each an array of shape (rows,). It returns x as the model
            takes it, or (x, y), or (x, y, sample_weight). `features_col` may then name any columns. If it has
            an argument `rng`, it gets a `numpy.random.Generator` for augmentation. See docs/data.md.
        pad_to: for rows of different lengths: the length to pad them to, "longest" for the longest row of
            each minibatch rounded up to a power of two, a list of lengths to round up to, a
            `distkeras.Padding`, or a dict of these by column.
        drop_remainder: drop the last minibatch of a worker's epoch if it is not full. Default: train on it.
        quorum: for synchronous algorithms: messages that complete a round. Default: one from every worker.
        grace: with a `quorum`: seconds for which a round stays open after the quorum, for further messages;
            less if every live worker has sent. Default: 0.
        num_parameter_servers: processes that share the center in parts of equal size; workers exchange with
            all of them in parallel. For models that are too large for one process.
        compression: how workers compress their messages: "int8" (a quarter of the bytes; try it first),
            "bf16", "fp16", "fp4", "sign", "topk", "chunktopk", or an instance such as
            `wire.codecs.TopK(density=0.05)`. The next message carries the rounding error of the last one.
            With the first three, replies that are the center are compressed too. Default: no compression.
            Not for `Averaging` and `Sequential`.
        overlap: train the next window while the last one is exchanged. The worker applies the reply at the
            end of that window, and keeps the progress made in it; staleness includes the window of delay.
            A number of steps, fewer than a window, instead sends each message so many steps before the end
            of its window and applies the reply at its end; what is trained in between counts only if the
            algorithm's `adopt` keeps it. Default: wait for the reply.
        schedule_steps: the steps that a learning-rate schedule counts: those of the whole training, so that
            the schedule ends where it ends in `fit` ("training"), or the worker's own ("local").
        on_bad_update: the action for a window whose loss or message is NaN or infinite. No center applies it.
            "raise" ends the training with an error; "skip" skips the window, and its worker continues from
            the center. `BadUpdates("skip", max_norm=100.0)` also refuses messages that are too large.
        on_lost_worker: for synchronous algorithms: whether a round waits for a worker without heartbeat,
            which Spark may still replace ("wait"), or proceeds without it until it returns ("proceed").
        server: address, snapshots, recording and time limits of the parameter server.
        server_placement: where the parameter servers run: "driver" for processes beside the driver, which
            every executor must reach; "executors" for Spark tasks with slots of their own, so that nothing
            must reach the driver; "auto" for the driver where the executors reach it, else for executors.
            Servers on executors need a folder that all executors share: by default the run directory; a
            `distkeras.Placement` names another. See docs/server_placement.md.
        resources: cores, memory and GPUs of the workers, where they differ from the application's settings:
            `Resources(cores=4, gpus=1)`. See docs/elastic.md.
        min_workers: with `max_workers`: workers that must be there before any of them trains. Default: 1.
        max_workers: most workers that train at one time, in place of `num_workers`: workers start as Spark
            has slots for them, and leave as executors go. For asynchronous algorithms. See docs/elastic.md.
        verbose: 0 for silent, 1 for a progress bar, 2 for a line an epoch, "auto" for a bar in a terminal or
            a notebook. Where there is neither, 1 is a line an epoch.
        global_batch_size: rows in the minibatches of all workers together, in place of `batch_size`. The rows
            that are in flight decide how much an asynchronous training loses with more workers: this keeps
            them the same. With `max_workers`, these share it.
        regions: number of regions, or their `distkeras.RegionServers`: servers in two levels. The workers of
            a region exchange with its own center by `algorithm`; after each window of commits that center
            exchanges with the global one, by HALoS or another rule. The model is the global center. Worker w
            belongs to region `w // (num_workers / regions)`. Default: one level. See docs/algorithms.md.

    Raises:
        TypeError: `keras_model` is not a Keras model, or `algorithm` is not an algorithm.
        ValueError: a count is not a positive integer, the model is not built and cannot be built, the
            optimizer or the loss is missing, momentum would be applied twice, or the compression is unknown
            or does not fit the algorithm.

    Warns:
        UnstableWarning: by the theory of the algorithm, training diverges at these parameters.
        UnfairWarning: from `train`: some workers are at least twice as fast as others, and the algorithm
            gives the fast ones a larger part in the model.
        ChangedDefaultWarning: `worker_optimizer` is only a name, and the defaults of that optimizer now learn
            much more slowly than in Keras 1.

    Example:
        ```python
        trainer = DistributedTrainer(model, algorithms.DynSGD(), "adam", "mse", num_workers=4)
        trained = trainer.train(df)
        ```
    """

    def train(
        self,
        dataframe: TrainingData,
        shuffle: bool = False,
        resume: Resume = False,
        *,
        validation_data: TrainingData | None = None,
        validation_split: float = 0.0,
        validation_freq: int | Collection[int] = 1,
        validation_batch_size: int | None = None,
        validation_steps: int | None = None,
        validate_on: Where = "auto",
        callbacks: Any = None,
        stop: StopWhen | None = None,
        run: str | os.PathLike[str] | RunOptions | None = None,
        steps_per_epoch: int | None = None,
        monitor: Given = None,
        dashboard: bool = False,
    ) -> keras.Model:
        """Train on `dataframe` and return a new, compiled Keras model as `fit` would leave it.

        The model has the center's weights, and worker 0's optimizer state, integers and seeds. See
        docs/models.md for the details.

        Args:
            dataframe: the rows: a Spark DataFrame; the path of Parquet files, as Spark reads it; a table of
                pyarrow, pandas, Polars or any other Arrow producer; or arrays: `(x, y)` or
                `(x, y, sample_weight)` as `keras.Model.fit` takes them, or a dict of arrays by column. If
                there is no Spark session, `train` creates a local one.
                The plan of a DataFrame is evaluated twice: once to check and count the rows, once to train.
                Cache the DataFrame if its plan is expensive or not deterministic.
            shuffle: assign the rows to the workers at random, and visit them in a new order every epoch.
                Default: keep the order of the rows.
            resume: continue a training whose driver died from its last snapshot, if there is one.
                `run`, or `server=ServerOptions(snapshots=SnapshotOptions(address))`, sets the address of the
                snapshots. With a `run`: False for a new run, True for one that exists, "auto" for either; its
                history, records and callbacks go on as well, and the number of workers may differ where the
                rule keeps no state on the server: see docs/runs.md. With "auto", a run that has ended by
                itself is over: its model is returned, unless there are more epochs.
                The data and the trainer's arguments must be the same, with these exceptions: there may be
                more epochs, and learning rates and metrics may differ. If no seed is given, the snapshot's
                seed is used. The history then has the windows since that snapshot. If another run still
                writes to the address, the resumed run takes the address from it.
            validation_data: rows to validate on at the ends of epochs, in the same forms as `dataframe`.
            validation_split: in place of `validation_data`: part of the rows to validate on, from 0 to 1. The
                last rows of arrays and tables; a seeded sample of a DataFrame.
            validation_freq: epochs from one validation to the next, or a collection of epochs, from 1.
            validation_batch_size: rows of a minibatch of the validation. Default: `batch_size`.
            validation_steps: minibatches to validate on. Default: all rows.
            validate_on: "driver" for a process beside the driver, "workers" for their shares of the rows,
                "auto" for the driver where the rows take at most 64 MiB.
            callbacks: Keras callbacks. They run in this thread, on the model that is returned. One worker and
                synchronous algorithms wait at the end of an epoch for what they decide; asynchronous
                workers take it within a window.
            stop: conditions to end the training, such as `StopWhen(val_accuracy=0.98, minutes=30)`.
            run: address of a run directory for settings, events and checkpoints, or its `RunOptions`.
            steps_per_epoch: minibatches of each worker in an epoch. Default: one pass over its rows.
            monitor: monitors of the training: a name such as "tensorboard", a `distkeras.monitor.Monitor`, or
                a list of these. See docs/monitoring.md.
            dashboard: the same as "dashboard" among the monitors.

        Raises:
            ValueError, TypeError: `dataframe` holds no data, or does not fit the model, the loss or the
                training to resume; or the address has snapshots of an unfinished training and `resume` is
                False. No worker has started.
            NotEnoughSlots: a synchronous algorithm has more workers than the cluster has task slots; or there
                is no room for servers on executors.
            NotShared: servers on executors have no folder that all executors share.
            ExecutorsNotReady: a package is missing in the executors' Python.
            ServerUnreachable: an executor cannot open a connection to a parameter server.
            WorkerError: an exception in a worker, or in the algorithm on the server, with its traceback.
            ServerFailed: the parameter server's process ended before the job.
        """
        around = around_of(
            validation_data,
            validation_split,
            validation_freq,
            validation_batch_size,
            validation_steps,
            validate_on,
            callbacks=callbacks,
            stop=stop,
            run=run,
            steps_per_epoch=steps_per_epoch,
            monitors=monitors_of(monitor, dashboard),
        )
        (model,) = self._run(dataframe, shuffle, around, self._given.first_vector, resume=resume)
        return model

    def evaluate(
        self, dataframe: TrainingData, *, model: keras.Model | None = None, batch_size: int | None = None
    ) -> dict[str, float]:
        """Return loss and metrics by name, as `model.evaluate` computes them on all rows. It runs on Spark.

        Args:
            dataframe: the rows, in the same forms as for `train`; columns have the names of the trainer's.
            model: a compiled model. Default: that of the last `train`, or `keras_model` before the first.
            batch_size: rows of a minibatch. Default: 256 at least.

        Raises:
            ValueError, TypeError: the data does not fit the model, or there are no rows.
        """
        trained = [] if self._training is None else self._training.models
        return self._evaluate(model or (trained[0] if trained else self.keras_model), dataframe, batch_size)

    def train_in_place(
        self, dataframe: TrainingData, around: Around, shuffle: bool = True, resume: Resume = False
    ) -> keras.callbacks.History:
        """Train `keras_model` itself, as `keras.Model.fit` does, and return Keras's history.

        The model gets the center's weights, and the optimizer's state, integers, seeds and metrics of worker
        0. Its optimizer continues from its present state. The model must be compiled, and the trainer have no
        optimizer and loss of its own.

        Args:
            dataframe: as in `train`.
            around: what goes around the training. Epochs are counted from its `initial_epoch` up to
                `num_epoch`.
            shuffle: as in `train`.
            resume: as in `train`.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; the model has the last weights.
            ValueError, TypeError, WorkerError: as `train`.
        """
        if not self.keras_model.compiled:
            raise ValueError(
                "Expected a compiled model to train in place. "
                f"Received: keras_model={self.keras_model.name!r}"
            )
        around = replace(around, in_place=True)
        self._run(dataframe, shuffle, around, self._given.first_vector, resume=resume)
        if self.result is not None and self.result.reason == "interrupt":
            raise KeyboardInterrupt
        return self._keras_history()

    def partial_fit(self, dataframe: TrainingData, shuffle: bool = False) -> keras.Model:
        """Train the model so far on one more piece of the data, and return it.

        The next call, or `train`, goes on from its weights and its optimizer's state. The
        model that the trainer was made with is not changed. For a stream, `foreachBatch` calls it with each
        batch of rows:

        ```python
        stream.writeStream.foreachBatch(lambda rows, number: trainer.partial_fit(rows)).start()
        ```

        Args:
            dataframe: as in `train`. A DataFrame without rows changes nothing; one with fewer rows than
                workers is trained on by fewer workers.
            shuffle: as in `train`.

        Raises:
            ValueError, TypeError: as `train`.
            NotEnoughSlots, ExecutorsNotReady, ServerUnreachable: as `train`.
            WorkerError, ServerFailed: as `train`.
        """
        workers = self.num_workers
        some = rows_up_to(dataframe, workers)
        if some == 0:
            return self.keras_model
        try:
            self.num_workers = min(workers, some)
            model = self.train(dataframe, shuffle)
        finally:
            self.num_workers = workers
        self.keras_model = model
        self._given = GivenModel(model, None, None, None, None, self.custom_objects, None)
        return model
