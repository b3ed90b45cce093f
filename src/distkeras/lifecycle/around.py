"""What goes around a training: validation, callbacks, conditions to stop, a run directory."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import keras

from distkeras.lifecycle.stop_when import StopWhen
from distkeras.monitor.monitors import Monitor
from distkeras.runs import RunOptions

if TYPE_CHECKING:
    import os

Where = Literal["auto", "driver", "workers"]
RUNS = "distkeras-runs"
"""Folder of the runs that monitors need and nobody has named."""


@dataclass(frozen=True)
class Validation:
    """How a training is validated.

    Attributes:
        data: the rows, in any form that `DistributedTrainer.train` takes.
        freq: epochs from one validation to the next; or the epochs to validate after, counted from 1.
        batch_size: rows of a minibatch; `None` for that of the training.
        steps: minibatches to validate on; `None` for all rows.
        on: where: in a process beside the driver, by the workers, or "auto" for the driver where the rows
            take at most 64 MiB.

    Raises:
        TypeError, ValueError: a number is not positive, or `on` has another value.
    """

    data: Any
    freq: int | Collection[int] = 1
    batch_size: int | None = None
    steps: int | None = None
    on: Where = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.freq, Collection) and not isinstance(self.freq, str | bytes):
            for epoch in self.freq:
                _check_count("validation_freq", epoch)
        else:
            _check_count("validation_freq", self.freq)
        for name, value in (("validation_batch_size", self.batch_size), ("validation_steps", self.steps)):
            if value is not None:
                _check_count(name, value)
        if self.on not in ("auto", "driver", "workers"):
            raise ValueError(
                f'`validate_on` must be "auto", "driver" or "workers". Received: validate_on={self.on!r}'
            )

    def is_due(self, epoch: int) -> bool:
        """Return whether the validation follows `epoch`, which counts from 0."""
        return (epoch + 1) % self.freq == 0 if isinstance(self.freq, int) else epoch + 1 in self.freq


@dataclass(frozen=True)
class Around:
    """What goes around a training.

    Attributes:
        callbacks: Keras callbacks, or a `keras.callbacks.CallbackList`; for an ensemble also a function that
            returns the callbacks of a member by its number.
        validation: how to validate; `None` for no validation.
        split: part of the rows to validate on, in place of `validation.data`: the last rows of arrays, a
            seeded sample of other data.
        stop: when to end before the last epoch; `None` for never.
        run: address of the run directory, or its options; `None` for none.
        initial_epoch: number of the first epoch.
        steps_per_epoch: minibatches of each worker in an epoch; `None` for a pass over its rows.
        verbose: 0 for silent; 1 or 2 for Keras's progress bar or lines, beside `callbacks`.
        in_place: whether the given model itself is trained.
        monitors: those that show the training.

    Raises:
        TypeError, ValueError: a setting is not of its kind, or out of range.
    """

    callbacks: Any = None
    validation: Validation | None = None
    split: float = 0.0
    stop: StopWhen | None = None
    run: str | os.PathLike[str] | RunOptions | None = None
    initial_epoch: int = 0
    steps_per_epoch: int | None = None
    verbose: int = 0
    in_place: bool = False
    monitors: tuple[Monitor, ...] = ()

    def __post_init__(self) -> None:
        _check_callbacks(self.callbacks)
        for name, kind in (("validation", Validation), ("stop", StopWhen)):
            value = getattr(self, name)
            if not isinstance(value, kind | None):
                raise TypeError(f"`{name}` must be a {kind.__name__} or None. Received: {name}={value!r}")
        if isinstance(self.split, bool) or not isinstance(self.split, int | float) or not 0 <= self.split < 1:
            raise ValueError(
                "`validation_split` must be at least 0 and less than 1: the part of the rows to validate on. "
                f"Received: validation_split={self.split!r}"
            )
        if type(self.initial_epoch) is not int or self.initial_epoch < 0:
            raise ValueError(
                f"`initial_epoch` must be an integer from 0. Received: initial_epoch={self.initial_epoch!r}"
            )
        if self.steps_per_epoch is not None:
            _check_count("steps_per_epoch", self.steps_per_epoch)

    def for_metrics(self, metrics: Iterable[Any]) -> Around:
        """Return the same with what a model's compiled `metrics` decide: of which of them more is better.

        Raises:
            ValueError: a target or the monitored value of checkpoints is no metric of which that is known.
        """
        given, run = list(metrics), RunOptions.of(self.run)
        if run is not None and run.checkpoints is not None:
            run = replace(run, checkpoints=run.checkpoints.for_metrics(given))
        return replace(self, run=run, stop=None if self.stop is None else self.stop.for_metrics(given))

    def for_monitors(self, rule: str) -> Around:
        """Return the same with a run for monitors that need one, named after the `rule` and the time."""
        if self.run is not None or not any(each.needs_run for each in self.monitors):
            return self
        address = f"{RUNS}/{rule}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        return replace(self, run=RunOptions(address, checkpoints=None))

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing around the training that sees it before its end."""
        return (
            self.callbacks is None or (isinstance(self.callbacks, list | tuple) and not self.callbacks)
        ) and not (
            self.validation
            or self.split
            or self.stop
            or self.run
            or self.in_place
            or self.verbose
            or self.monitors
        )


def _check_count(name: str, value: object) -> None:
    if type(value) is not int or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


def _check_callbacks(given: Any) -> None:
    """Raise TypeError unless `given` holds callbacks."""
    if given is None or isinstance(given, keras.callbacks.CallbackList):
        return
    if callable(given) and not isinstance(given, keras.callbacks.Callback):
        return
    for each in keras.tree.flatten(given):
        if not isinstance(each, keras.callbacks.Callback):
            raise TypeError(
                "`callbacks` must hold instances of keras.callbacks.Callback. "
                f"Received: {type(each)}{' (make an instance of it)' if isinstance(each, type) else ''}"
            )


def around_of(
    validation_data: Any,
    split: float,
    freq: int | Collection[int],
    batch_size: int | None,
    steps: int | None,
    on: Where,
    **further: Any,
) -> Around:
    """Return what goes around a training, from the arguments of `train`.

    Raises:
        TypeError, ValueError: as `Around` and `Validation`; both `validation_data` and a part of the rows.
    """
    if validation_data is not None and split:
        raise ValueError(
            "Expected either `validation_data` or `validation_split`, which takes rows from the data. "
            f"Received: both, validation_split={split!r}"
        )
    validation = Validation(validation_data, freq, batch_size, steps, on)
    return Around(
        validation=validation if validation_data is not None or split else None, split=split, **further
    )
