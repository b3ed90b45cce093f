"""What a monitor is: it gets the events of a training while it runs, in a thread of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, ClassVar

from distkeras.runs.event_files import Written
from distkeras.runs.notes import Notes
from distkeras.runs.rollup import Epoch

Shown = Written | Epoch
"""What monitors take: every event of a run, and the epochs that the driver has closed, with their logs."""


@dataclass(frozen=True)
class TrainingFacts:
    """What is known at the beginning of a training. There is no secret in it.

    Attributes:
        title: the training in words, such as "ADAG, 8 workers".
        name: name of the run for labels and folders: the last part of its address, or the rule and the time.
        rule: name of the algorithm.
        num_workers: number of workers.
        rows: rows of an epoch, of all workers together; 0 in a simulation.
        epochs: number of epochs at whose end the training ends, with those before `first_epoch`; 0 in a
            simulation.
        settings: all settings, plain JSON: those of the trainer, the rule, the data, the server.
        run: address of the run directory; `None` for none.
        first_epoch: number of the first epoch of the center: 0, or more in a training that goes on.
        behind: rows of the epochs before that. The rows of the center since then are those of its windows.
        target: rows with which the training ends, with those before `first_epoch`; 0 if that is not known.
        members: number of models: more than 1 for an ensemble, where worker i trains member i.
        is_resumed: whether the run has an earlier session.
        source: what the training goes on from: "start", "snapshot" or "checkpoint". After a snapshot, a
            `ServerRestored` says how far the center is.
        notes: what monitors keep for the next session of the run; it is forgotten without a run.
    """

    title: str
    name: str
    rule: str
    num_workers: int
    rows: int
    epochs: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None
    first_epoch: int = 0
    behind: int = 0
    target: int = 0
    members: int = 1
    is_resumed: bool = False
    source: str = "start"
    notes: Notes = field(default_factory=Notes, compare=False)


class Monitor(ABC):
    """Shows a training somewhere, while it runs. Abstract: give a subclass's instance as `monitor=`.

    All methods are called in one thread that belongs to this monitor. It may be slow: events wait, and if too
    many do, the oldest are dropped. An exception warns, and ends the monitor, never the training.

    A monitor may be used for one training after another, not for two at a time.
    """

    needs_run: ClassVar[bool] = False
    """Whether it reads the run directory: a training without one then gets one in `distkeras-runs`."""
    patience: ClassVar[float] = 10.0
    """Seconds that the training waits for it at the end."""

    def begin(self, training: TrainingFacts) -> None:  # noqa: B027 (nothing to do for many)
        """Learn what is trained, before the first event."""

    @abstractmethod
    def take(self, events: Sequence[Shown]) -> None:
        """Take the events since the last call, about once a second, in the order of the center.

        They are those of `distkeras.events` and of `distkeras.runs`; an `Epoch` has the logs of an epoch.
        After a `ServerRestored` the windows do not count that the server does not have, and they come again.
        An `EventsDropped` stands for events that are missing.
        """

    def end(self, result: Mapping[str, Any]) -> None:  # noqa: B027
        """Learn how the training ended, after the last event.

        Args:
            result: the attributes of `distkeras.TrainingResult`, and "models": the trained models. After an
                error only "reason", which is "error", and the "error" in words.
        """


NAMES = {
    "dashboard": "Dashboard",
    "tensorboard": "TensorBoard",
    "mlflow": "MLflow",
    "prometheus": "Prometheus",
}
"""The classes of this package that have a name as `monitor=`, made without arguments."""

Given = str | Monitor | Sequence[str | Monitor] | None


def monitors_of(given: Given, dashboard: bool = False) -> tuple[Monitor, ...]:
    """Return the monitors that the arguments `monitor` and `dashboard` of a training stand for.

    Raises:
        TypeError: something else was given.
        ValueError: a name is unknown, or a monitor is given twice.
        ImportError: the package of a monitor is not installed.
    """
    if not isinstance(dashboard, bool):
        raise TypeError(f"`dashboard` must be True or False. Received: dashboard={dashboard!r}")
    listed: list[Any] = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    if dashboard and "dashboard" not in listed:
        listed.append("dashboard")
    found = tuple(_monitor_of(each) for each in listed)
    if len({each if isinstance(each, str) else id(each) for each in listed}) < len(listed):
        raise ValueError(f"A monitor can be given once for a training. Received: monitor={given!r}")
    return found


def _monitor_of(given: str | Monitor) -> Monitor:
    if isinstance(given, Monitor):
        return given
    if not isinstance(given, str):
        raise TypeError(
            "`monitor` must be a name, an instance of distkeras.monitor.Monitor, or a list of these. "
            f"Received: {type(given)}{' (make an instance of it)' if isinstance(given, type) else ''}"
        )
    if given not in NAMES:
        raise ValueError(
            f"Expected the name of a monitor: {', '.join(map(repr, NAMES))}. Received: monitor={given!r}"
        )
    made = getattr(import_module("distkeras.monitor"), NAMES[given])()
    if not isinstance(made, Monitor):
        raise TypeError(f"Expected a Monitor of the name {given!r}. Received: {type(made)}")
    return made
