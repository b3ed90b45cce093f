"""`fit`: trains a Keras model in place, on Spark, with the arguments of `keras.Model.fit`."""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

import keras

from distkeras.algorithms import DOWNPOUR, Algorithm, DynSGD, Sequential
from distkeras.cluster.tables import slots_for
from distkeras.lifecycle import Around, Validation
from distkeras.monitor.monitors import Given, monitors_of
from distkeras.trainers.checks import batch_size_of, check_model, check_positive_integer
from distkeras.trainers.data_of_fit import (
    Data,
    build,
    data_of,
    folders,
    is_dataset,
    validation_of,
    whole_executions,
)
from distkeras.trainers.distributed import DistributedTrainer

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from distkeras.lifecycle import StopWhen
    from distkeras.runs import RunOptions
    from distkeras.trainers.keywords import FurtherOptions

logger = logging.getLogger(__name__)

FEW_WORKERS = 4
"""Number of workers up to which added deltas converge with the usual learning rates."""

COMPILED = {
    "worker_optimizer": "the optimizer",
    "loss": "the loss",
    "metrics": "the metrics",
    "loss_weights": "the weights of the losses",
}
ELSEWHERE = {
    "keras_model": "the model is the first argument",
    "num_epoch": "give `epochs`",
    "input_shape": "the data gives the shape of a model that is not built",
}


def recommended(num_workers: int) -> Algorithm:
    """Return the algorithm for so many workers, for a user who names none.

    docs/choosing.md has the reasons.

    Args:
        num_workers: number of workers, at least 1.
    """
    if num_workers == 1:
        return Sequential()
    if num_workers <= FEW_WORKERS:
        return DOWNPOUR(communication_window=5)
    return DynSGD()


def fit(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.CallbackList | None = None,
    validation_split: float = 0.0,
    validation_data: Any = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    steps_per_epoch: int | None = None,
    validation_steps: int | None = None,
    validation_batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    *,
    algorithm: Algorithm | None = None,
    num_workers: int | None = None,
    global_batch_size: int | None = None,
    stop: StopWhen | None = None,
    run: str | os.PathLike[str] | RunOptions | None = None,
    resume: bool | Literal["auto"] = False,
    validate_on: Literal["auto", "driver", "workers"] = "auto",
    monitor: Given = None,
    dashboard: bool = False,
    **options: Unpack[FurtherOptions],
) -> keras.callbacks.History:
    """Train `model` in place on Spark, as `keras.Model.fit` does in one process.

    The model must be compiled. Training continues from its weights and from its optimizer's state, and leaves
    both in it. docs/fit.md compares every argument with `keras.Model.fit`.

    Args:
        model: a compiled Keras model.
        x: what `DistributedTrainer.train` takes (a DataFrame, the path of Parquet files, a table of pyarrow,
            pandas or Polars), arrays of any kind that Keras takes, or a `PyDataset`, generator,
            `tf.data.Dataset`, PyTorch `DataLoader` or grain dataset. Such a dataset is written out to Parquet
            files once, before the training: every epoch sees the same rows.
        y: labels, with arrays.
        batch_size: rows in a minibatch of one worker. Default: that of the dataset, else 32.
        epochs: index of the last epoch, counted from 1.
        verbose: 0 for silent, 1 for a progress bar, 2 for a line an epoch; "auto" is 1.
        callbacks: Keras's callbacks; they run in this process, in the thread that called.
        validation_split: share of the rows to validate on: the last of arrays, chosen by the seed of a
            DataFrame.
        validation_data: as `x`, or `(x, y)` or `(x, y, sample_weight)`.
        shuffle: assign the rows to workers at random, and visit them in a new order every epoch. Datasets but
            a `PyDataset` keep their order.
        class_weight: weight of a row's loss by the class of its label.
        sample_weight: weights of the rows, with arrays.
        initial_epoch: index of the first epoch.
        steps_per_epoch: minibatches of one worker in an epoch. Default: a pass over the rows.
        validation_steps: minibatches to validate on, for arrays and datasets. Default: all.
        validation_batch_size: rows in a minibatch of the validation. Default: `batch_size`.
        validation_freq: validate every so many epochs, or after the epochs with these numbers, from 1.
        algorithm: the distributed optimizer. Default: `recommended(num_workers)`, which is logged.
        num_workers: number of replicas. Default: as many as Spark has task slots. With `max_workers`, among
            the options, workers come and go instead.
        global_batch_size: rows in the minibatches of all workers together; in place of `batch_size`.
        stop: when to stop.
        run: address of a directory for checkpoints, events and snapshots.
        resume: go on with the run at that address: True, False, or "auto" if there is one.
        validate_on: where to validate: in a process beside this one, or on the workers.
        monitor: what shows the training, as in `DistributedTrainer.train`.
        dashboard: the same as "dashboard" among the monitors.
        **options: further arguments of `DistributedTrainer`, such as `features_col`, `label_col`, `seed`,
            `compression` or `server`.

    Returns:
        Keras's own `History`, with the logs of every epoch.

    Raises:
        TypeError: an unknown argument, or data of an unknown type.
        ValueError: the model is not compiled; an argument is out of range, or does not fit the data; else as
            `DistributedTrainer.train`.
        KeyboardInterrupt: after Ctrl-C; the weights so far are in the model.

    Example:
        ```python
        history = distkeras.fit(model, x, y, epochs=3, validation_split=0.1)
        ```
    """
    _check(model, options)
    monitors = monitors_of(monitor, dashboard)
    level = _verbosity(verbose)
    given: dict[str, Any] = dict(options)
    most_workers = options.get("max_workers")
    if most_workers is None:
        workers = given["num_workers"] = _num_workers(x, num_workers)
    else:  # They come and go.
        workers = _most_workers(most_workers, num_workers, steps_per_epoch)
    rule = _algorithm(algorithm, workers, level, elastic=most_workers is not None)
    epochs = _capped(epochs)
    if epochs <= initial_epoch:
        return _untrained(model, callbacks, epochs, level)
    _check_split(validation_split, validation_data, x)
    if steps_per_epoch is not None:
        check_positive_integer("steps_per_epoch", steps_per_epoch)
    steps = _fewest(steps_per_epoch, keras.config.max_steps_per_epoch())
    with folders(2) as (for_training, for_validation):
        whole = whole_executions(model, steps)
        most = None if whole is None else whole * (epochs - initial_epoch) * workers
        data = data_of(
            x,
            y,
            sample_weight,
            folder=for_training,
            steps=most,
            one_file=workers == 1 and most_workers is None,
        )
        split = 0.0 if validation_data is not None else validation_split
        rows = None if data.num_rows is None else math.floor(data.num_rows * (1 - split))
        size = _batch_size(batch_size, global_batch_size, workers, data, rows, steps)
        build(model, data.first)
        trainer = DistributedTrainer(
            *(model, rule),
            batch_size=size,
            num_epoch=epochs,
            class_weight=class_weight,
            verbose=0,
            **given,
        )
        trainer.feeding = replace(trainer.feeding, not_finite="warn")  # As Keras, which takes any numbers.
        judged_at = validation_batch_size or size
        validation_steps = whole_executions(model, validation_steps)
        around = Around(
            callbacks=callbacks,
            validation=None
            if validation_data is None and not split
            else Validation(
                _rows_of(validation_data, for_validation, judged_at, validation_steps),
                validation_freq,
                judged_at,
                validation_steps if split else None,
                validate_on,
            ),
            split=split,
            stop=stop,
            run=run,
            initial_epoch=initial_epoch,
            steps_per_epoch=_steps(whole, rows, size, workers),
            verbose=level,
            monitors=monitors,
        )
        shuffled = bool(shuffle) and not data.in_order
        return trainer.train_in_place(data.rows, around, shuffle=shuffled, resume=resume)


def _rows_of(validation_data: Any, folder: Path, batch_size: int, steps: int | None) -> Any:
    if validation_data is None:
        return None
    return validation_of(validation_data, folder=folder, batch_size=batch_size, steps=steps).rows


def _check(model: Any, options: Mapping[str, Any]) -> None:
    """Refuse a model that cannot be trained, and arguments that `fit` has in another place or not at all."""
    check_model("model", model)
    if not model.compiled:
        raise ValueError(
            "Expected a compiled model: call `model.compile(optimizer, loss)` first, as before "
            f"`keras.Model.fit`. Received: {model.name!r}, which is not compiled"
        )
    for name in options:
        if name in COMPILED:
            raise TypeError(
                f"`fit` trains the model as it is compiled: give {COMPILED[name]} to `model.compile`, or "
                f"use `DistributedTrainer`. Received: {name}={options[name]!r}"
            )
        if name in ELSEWHERE:
            raise TypeError(f"`fit` takes no `{name}`: {ELSEWHERE[name]}. Received: {name}={options[name]!r}")
        if name not in OPTIONS:
            raise TypeError(
                f"`fit` has no argument `{name}`. Expected those of `keras.Model.fit`, of this function, or "
                f"of `DistributedTrainer`: {sorted(OPTIONS)}. Received: {name}={options[name]!r}"
            )


def _num_workers(x: Any, given: int | None) -> int:
    if given is not None:
        check_positive_integer("num_workers", given)
        return given
    return max(1, slots_for(x))


def _most_workers(most: int, num_workers: int | None, steps_per_epoch: int | None) -> int:
    """Return `max_workers`; refuse what does not go with it."""
    check_positive_integer("max_workers", most)
    for name, value in (("num_workers", num_workers), ("steps_per_epoch", steps_per_epoch)):
        if value is not None:
            raise ValueError(
                f"`{name}` needs a fixed number of workers, but with `max_workers` the number changes. "
                f"Received: {name}={value!r}, max_workers={most!r}"
            )
    return most


def _algorithm(
    given: Algorithm | None, workers: int, verbose: int | str, *, elastic: bool = False
) -> Algorithm:
    """Return the given algorithm, or the recommended one with a word about it."""
    if given is not None:
        return given
    rule = recommended(max(workers, 2) if elastic else workers)
    word = (
        f"{workers} worker{'s' if workers > 1 else ''}, {rule!r}: the recommended algorithm for this "
        "number. `algorithm=` and `num_workers=` change it."
    )
    if _verbosity(verbose):
        print(f"distkeras.fit: {word}")
    logger.info("%s", word)
    return rule


def _capped(epochs: int) -> int:
    """Return `epochs`, or fewer by `keras.config.set_max_epochs`, as `keras.Model.fit` does."""
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 0:
        raise ValueError(f"`epochs` must be an integer from 0. Received: epochs={epochs!r}")
    most = keras.config.max_epochs()
    if most and most < epochs:
        warnings.warn(
            f"Keras limits the training to {most} epochs (keras.config.set_max_epochs)", stacklevel=3
        )
        return int(most)
    return epochs


def _fewest(*numbers: int | None) -> int | None:
    return min((number for number in numbers if number is not None), default=None)


def _batch_size(
    given: int | None, together: int | None, workers: int, data: Data, rows: int | None, steps: int | None
) -> int:
    """Return the rows of a minibatch of one worker."""
    if (size := batch_size_of(given, together, workers)) is not None:
        return size
    if data.batch_size is not None:
        return data.batch_size
    if steps is not None and rows is not None:  # As Keras: so many minibatches make up the rows.
        return max(1, math.ceil(rows / (steps * workers)))
    return 32


def _steps(steps: int | None, rows: int | None, size: int, workers: int) -> int | None:
    """Return `steps_per_epoch`, or `None` if an epoch is a pass: as in Keras, it is not longer."""
    if steps is None:
        return None
    if rows is not None and steps >= math.ceil(rows / (size * workers)):
        return None
    return steps


def _check_split(split: float, validation_data: Any, x: Any) -> None:
    if split and validation_data is None and is_dataset(x):
        raise ValueError(
            "Expected `validation_data` with a dataset that yields minibatches, which has no last rows: "
            "`validation_split` is for arrays, tables and DataFrames. "
            f"Received: validation_split={split!r}, x of type {type(x)}"
        )


def _verbosity(verbose: int | str) -> int:
    if verbose == "auto":
        return 1
    if verbose not in (0, 1, 2):
        raise ValueError(f'`verbose` must be 0, 1, 2 or "auto". Received: verbose={verbose!r}')
    return int(verbose)


def _untrained(model: Any, callbacks: Any, epochs: int, verbose: int) -> keras.callbacks.History:
    """Return the history of no epochs; the callbacks see the beginning and the end, as in Keras."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = keras.callbacks.CallbackList(
            *(callbacks, True, verbose != 0, model),
            verbose=verbose,
            epochs=epochs,
            steps=None,
        )
    model.stop_training = False
    callbacks.on_train_begin()
    callbacks.on_train_end({})
    history: keras.callbacks.History = model.history
    return history


OPTIONS = frozenset(inspect.signature(DistributedTrainer).parameters) - {
    "keras_model",
    "algorithm",
    "num_workers",
    "batch_size",
    "class_weight",
    "num_epoch",
    "verbose",
    "input_shape",
    *COMPILED,
}
"""Further arguments of `DistributedTrainer` that `fit` takes."""
