"""The trainer of any rule: a Keras model, a DataFrame and a distributed optimizer in, a trained model out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkeras.trainers.base import Trainer
from distkeras.worker.final_state import FinalState

if TYPE_CHECKING:
    import keras

    from distkeras.cluster.tables import TrainingData


class DistributedTrainer(Trainer):
    """Trains a Keras model on a Spark DataFrame with `num_workers` replicas and any distributed optimizer.

    Each worker is a Spark task that trains its partition, and exchanges weights with a parameter server once
    a communication window. A worker whose process dies is started again by Spark and goes on after its last
    committed window; an exception in a worker ends the training and is raised here, with its traceback.

    Args:
        keras_model: any Keras 3 model. It is left as it is.
        algorithm: the distributed optimizer: an instance of a rule in `distkeras.algorithms`, or of your own
            subclass of `distkeras.algorithms.Algorithm`.
        worker_optimizer: the optimizer inside each worker: a name, a Keras optimizer (each worker makes a
            fresh one of its configuration), or None for the one that the model is compiled with, which goes
            on with its state if the model has been trained.
        loss: a name, a Keras loss or a function, a list or dict of them; None for the compiled one.
        metrics: as `keras.Model.compile` takes them. Default: accuracy where the model has one output, or the
            compiled ones where the loss is the compiled one.
        loss_weights: as `keras.Model.compile` takes them.
        num_workers: replicas, one a Spark task.
        batch_size: rows in a minibatch of one worker.
        features_col: column of the model's input; a list for several inputs, a dict by layer name. A list for
            the only input is put together in its order.
        label_col: column of the labels, likewise.
        sample_weight_col: column by which each row's loss is weighed: a number, or an array of one for each
            place of the output, such as a time step. A list or dict as `label_col` for several outputs, with
            `None` or no entry for outputs whose rows count 1. Default: all alike.
        class_weight: what a row's loss counts by the class of its label, such as `{0: 1.0, 1: 5.0}`; classes
            that are not named count 1. It multiplies sample weights. For models with one output.
        num_epoch: passes over the data.
        seed: of shuffling and of rows' way to workers. Default: a random one.
        custom_objects: classes and functions of the model that are not registered with Keras, by name.
        input_shape: shape with the batch dimension, such as (None, 784), to build a model that is not built
            yet; the only thing that is ever changed in `keras_model`.
        preprocess: your function that makes each minibatch in the worker. It takes a dict of the columns of
            features, labels and weights by name, each an array of shape (rows,), and returns x as the model
            takes it, or (x, y), or (x, y, sample_weight). `features_col` may then name any columns. With an
            argument `rng` it gets a `numpy.random.Generator` for augmentation. docs/data.md says more.
        pad_to: for rows of different lengths: the length to which they are filled up, "longest" for that of
            each minibatch rounded up to a power of two, a list of lengths to round up to, a
            `distkeras.Padding`, or a dict of these by column.
        drop_remainder: leave out the last minibatch of a worker's epoch if it is not full. Default: train it.
        quorum: for synchronous rules: messages that complete a round. Default: one of every worker.
        num_parameter_servers: processes that hold the center between them, in parts of equal size; workers
            talk to all at once. For models that outgrow one process. Not with a quorum.
        compression: how workers compress their messages: "int8" (a quarter of the bytes; the one to begin
            with), "bf16", "fp16", "sign", "topk", or an instance such as `wire.codecs.TopK(density=0.05)`.
            What one message loses comes with the next. With the first three, replies that are the center are
            compressed too. Default: no compression. Not for `Averaging` and `Sequential`.
        overlap: train the next window while one is exchanged. The reply is taken up at the end of that one,
            under its progress; staleness counts the window that it came late. Default: wait for the reply.
        schedule_steps: which steps a learning-rate schedule counts: those of the whole training, so that it
            ends where it ends in `fit` ("training"), or the worker's own ("local").
        on_bad_update: of a window whose loss or message is NaN or infinite, which no center takes: "raise"
            ends the training with an error; "skip" passes the window over, and its worker goes on from the
            center. `BadUpdates("skip", max_norm=100.0)` also refuses messages that are too large.
        on_lost_worker: for synchronous rules: whether a round waits for a worker that gives no sign of life
            ("wait"), which Spark may yet replace, or goes on without it until it is back ("proceed").
        server: where the parameter server listens, what it writes down, and how long is waited for whom.
        verbose: 0: silent; 1: a progress bar; "auto": a bar where there is a terminal or a notebook.

    Raises:
        TypeError: `keras_model` is no Keras model, or `algorithm` no rule.
        ValueError: a count that is not a positive integer, a model that is neither built nor can be, an
            optimizer or loss that is missing, momentum that would be applied twice, an unknown compression
            or one for a rule by which something would be lost.

    Warns:
        UnstableWarning: the theory of the rule says that training diverges at these parameters.
        ChangedDefaultWarning: `worker_optimizer` is a name alone, of an optimizer that by default learns much
            more slowly than it did in Keras 1.

    Example:
        ```python
        trainer = DistributedTrainer(model, algorithms.DynSGD(), "adam", "mse", num_workers=4)
        trained = trainer.train(df)
        ```
    """

    def train(self, dataframe: TrainingData, shuffle: bool = False, resume: bool = False) -> keras.Model:
        """Train on `dataframe` and return a new, compiled Keras model as `fit` would leave it.

        It has the center's weights, and worker 0's optimizer state, integers and seeds. docs/models.md tells
        the rest.

        Args:
            dataframe: the rows: a Spark DataFrame; the path of Parquet files, as Spark reads it; a table of
                pyarrow, pandas, Polars or whatever else gives Arrow; or arrays: `(x, y)` or
                `(x, y, sample_weight)` as `keras.Model.fit` takes them, or a dict of them by column. Where
                there is no Spark session, a local one is made.
                The plan of a DataFrame is evaluated twice: once to check and count the rows, once to train.
                Cache it where that is expensive, or where it is not deterministic.
            shuffle: deal the rows to the workers at random, and visit them in another order every epoch.
                Default: in the order in which they come.
            resume: go on with a training whose driver died, from its last snapshot, if there is one:
                `server=ServerOptions(snapshots=SnapshotOptions(address))` says where. The data and the
                trainer's arguments must be the same; only epochs may be more, learning rates and metrics
                others. The seed is taken from the snapshot where none is given. The history then has the
                windows since that snapshot. An address that another run still writes to is taken from it.

        Raises:
            ValueError, TypeError: data that is none, or does not fit model and loss, or the training that is
                resumed, or an address with snapshots of one that did not end and is not resumed. No worker
                has started.
            NotEnoughSlots: a synchronous rule has more workers than the cluster has task slots.
            ExecutorsNotReady: a package is missing in the executors' Python.
            WorkerError: an exception in a worker, or in the rule on the server, with its traceback.
            ServerFailed: the parameter server's process ended before the job.
        """
        outcome, columns = self._run(dataframe, shuffle, self._given.first_vector(), resume=resume)
        own, *others = (outcome.final_states.get(worker, FinalState()) for worker in range(self.num_workers))
        return self._given.trained(outcome.center, own, columns, others, batch_size=self.batch_size)
