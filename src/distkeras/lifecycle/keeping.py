"""The run directory of one training: what the training keeps there, and what a resumed one continues."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import keras

from distkeras.cluster.resume import Interrupted, Start, find_interrupted, start_of, whole_epochs
from distkeras.events import EpochEnded, ServerRestored, Window
from distkeras.lifecycle.callback_state import CallbackStates
from distkeras.lifecycle.failures import Failures
from distkeras.lifecycle.result import BY_ITSELF
from distkeras.monitor.running import Monitors
from distkeras.runs import EpochRecord, Run, RunOptions, RunResumed
from distkeras.runs.counted import Seen
from distkeras.runs.event_files import Written
from distkeras.runs.notes import Notes
from distkeras.runs.rollup import Epoch
from distkeras.wire.redaction import without_secrets

if TYPE_CHECKING:
    from distkeras.algorithms import Algorithm
    from distkeras.cluster.options import ServerOptions
    from distkeras.lifecycle.conductor import Conductor
    from distkeras.lifecycle.live_model import Logs
    from distkeras.lifecycle.result import TrainingResult
    from distkeras.monitor.monitors import TrainingFacts
    from distkeras.wire.store import SnapshotOptions

logger = logging.getLogger(__name__)

Resume = bool | Literal["auto"]


class Keeping:
    """What a training keeps, in its run directory if it has one.

    A store that refuses a record or a checkpoint does not end the training, but the end reports it.

    Args:
        run: the run; `None` for none.
        resume: as in `DistributedTrainer.train`.
        monitors: those that get the events.

    Attributes:
        start: what the training begins with; known after `decide`.
    """

    def __init__(self, run: Run | None, resume: Resume, monitors: Monitors | None = None) -> None:
        self.run = run
        self._monitors = monitors or Monitors()
        self._behind, self._began = 0, time.time()
        self.start = Start()
        self._resume = bool(resume) if run is None else run.resumed
        self._states: dict[int, CallbackStates] = {}
        self._records: dict[int, EpochRecord | None] = {}
        self._members = 1
        self._seen = Seen()
        self._failures = Failures(self.write)
        self._unwritten: dict[int, list[partial[None]]] = {}  # Records, by member.

    @classmethod
    @contextmanager
    def opened(
        cls, run: str | os.PathLike[str] | RunOptions | None, resume: Resume, monitors: Monitors | None = None
    ) -> Iterator[Keeping]:
        """Take the run of a training for a `with` block, after which the monitors have ended.

        Raises:
            ValueError: as for `Run.open`.
        """
        options = RunOptions.of(run)
        with nullcontext() if options is None else Run.open(options, resume) as taken:
            keeping = cls(taken, resume, monitors)
            try:
                yield keeping
            except BaseException as error:
                text = "".join(traceback.format_exception_only(error)).strip()
                keeping._monitors.end({"reason": "error", "error": keeping.hidden(text)})
                raise

    def server(self, options: ServerOptions) -> ServerOptions:
        """Return the options of the parameter server, with its snapshots in the run."""
        if self.run is None:
            return options
        return replace(options, snapshots=self.run.snapshot_options(options.snapshots))

    def snapshots(self, given: SnapshotOptions | None) -> SnapshotOptions | None:
        """Return where the snapshots can be read, of a training that was given these options."""
        if self.run is None or given is None or given.address is not None:
            return given
        return replace(given, address=self.run.snapshots, storage_options=self.run.options.storage_options)

    def find(self, server: ServerOptions) -> Interrupted | None:
        """Return the training to resume; `None` if there is none."""
        if self.run is not None and not server.resumable:
            return None
        return find_interrupted(server, self._resume)

    def seed(self, interrupted: Interrupted | None) -> int | None:
        """Return the seed of the training to resume; `None` if there is none."""
        earlier = self.run.earlier if interrupted is None and self.run is not None else None
        settings = earlier if interrupted is None else interrupted.settings
        return None if settings is None else int(settings["seed"])

    def decide(
        self,
        interrupted: Interrupted | None,
        settings: Mapping[str, Any],
        algorithm: Algorithm,
        epoch_rows: Sequence[Sequence[int]],
    ) -> Start:
        """Decide what the training begins with, and drop what was kept of later epochs.

        Raises:
            ValueError: as for `start_of`.
        """
        self._members = len(epoch_rows)
        self.start = start_of(self.run, interrupted, settings, algorithm, epoch_rows)
        for change in self.start.changes.said:
            logger.warning("The resumed training differs: %s.", change)
        if self.run is not None and self.run.resumed:
            for member in range(self._members):
                epochs = self.start.epochs[member] - self._is_to_close_again(member, interrupted, epoch_rows)
                self._records[member] = self.run.roll_back(epochs, self._key(member))
        return self.start

    def _is_to_close_again(
        self, member: int, interrupted: Interrupted | None, epoch_rows: Sequence[Sequence[int]]
    ) -> bool:
        """Whether the last epoch has a record but no checkpoint, and the center still is that of its end.

        The earlier driver died in between. The epoch is then closed once more, with the same decisions.
        """
        options = None if self.run is None else self.run.options.checkpoints
        if self.run is None or options is None or interrupted is None or self.start.source != "snapshot":
            return False
        epochs, samples = self.start.epochs[member], interrupted.samples
        rows = samples[member] if self._members > 1 else sum(samples)
        at_end = rows > 0 and whole_epochs(rows, epoch_rows[member]) > whole_epochs(
            rows - 1, epoch_rows[member]
        )
        saved = self.run.checkpoints(self._key(member)).last
        return at_end and epochs % options.every == 0 and saved != epochs - 1

    def behind(self, member: int, first: int) -> int:
        """Return how many epochs of the center are closed.

        The center may have more behind it, which the earlier driver did not come to close.
        """
        if self.start.source != "snapshot":
            return 0
        if self.run is None:
            return self.start.epochs[member] - first
        record = self._records.get(member)
        return 0 if record is None else record.epoch + 1 - first

    def missed(self, member: int, first: int) -> list[EpochEnded]:
        """Return the ends of epochs that the center has behind it, and the earlier driver did not close."""
        if self.start.source != "snapshot" or self.run is None:
            return []
        closed, epochs = self.behind(member, first), self.start.epochs[member] - first
        # The last event of an epoch counts: a restarted server may have reported one before.
        found = {
            event.epoch: event
            for event in self.run.events()
            if isinstance(event, EpochEnded) and event.member == member and closed <= event.epoch < epochs
        }
        return [found[epoch] for epoch in sorted(found)]

    @property
    def base(self) -> int | None:
        """Epochs before the first row of a resumed center; `None` for a center that begins now."""
        if self.start.source == "checkpoint":
            return self.start.epochs[0]
        return self.run.base if self.start.source == "snapshot" and self.run is not None else None

    @property
    def saves_models(self) -> bool:
        """Whether the run has checkpoints."""
        return self.run is not None and self.run.options.checkpoints is not None

    def save(self, member: int, model: keras.Model, epoch: int, logs: Logs) -> None:
        """Save a model as a checkpoint, if one is due after `epoch`."""
        if self.run is not None and self.saves_models:
            with self._failures.noted(self.run, f"the checkpoint of epoch {epoch}", "checkpoint", member):
                self.run.checkpoint(epoch, logs, model, member=self._key(member))

    def save_asked(self, models: Sequence[keras.Model]) -> list[str]:
        """Save the models that a person has requested in the middle of a training; return where."""
        if self.run is None:
            raise RuntimeError("There is no run.")
        return [self.run.save_asked(model, self._key(member)) for member, model in enumerate(models)]

    def checkpoint(self, epoch: int, custom_objects: Mapping[str, Any] | None) -> keras.Model:
        """Return the model of a checkpoint."""
        if self.run is None:
            raise RuntimeError("There is no run.")
        return self.run.load_checkpoint(epoch, custom_objects=custom_objects)

    def before(self, member: int, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        """Prepare the callbacks of a model, before `on_train_begin`."""
        self._states[member] = CallbackStates(callbacks)
        record = self._records.get(member)
        if record is not None:
            self._states[member].before_training(record.state["callbacks"], record.epoch + 1)

    def restore(self, member: int, conductor: Conductor) -> None:
        """Give the callbacks and the model the state in the run, after `on_train_begin`."""
        if self.run is None or not self.run.resumed:
            return
        history = conductor.callbacks.history
        for record in self.run.records(self._key(member)):
            history.epoch.append(record.epoch)
            for name, value in record.logs.items():
                history.history.setdefault(name, []).append(value)
        found = self._records.get(member)
        if found is None:
            return
        for text in self._states[member].set(found.state["callbacks"]):
            logger.warning("In the resumed training %s.", text)
        if not self.start.changes.rates:
            conductor.live.set_rate(found.state["rate"])
        if found.state["stop"] and not self.run.ended:
            # The driver died between the decision and the end.
            conductor.live.model.stop_training = True

    def begin(
        self, settings: Mapping[str, Any], facts: Mapping[str, Any], model: keras.Model | None, first: int
    ) -> None:
        """Write the beginning of the training to the run."""
        if self.run is not None:
            source = self.start.source
            epochs = first if source == "start" else min(self.start.epochs)
            self.run.begin(settings, facts=facts, model=model, epochs=epochs, source=source)
            if source != "start":
                self._monitors.write(RunResumed(epochs, source, time.time()))

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Write to the run what has become known of the training since it began."""
        if self.run is None:
            return
        try:
            self.run.add_facts(facts)
        except OSError as error:  # The training goes on without them.
            logger.warning("The run lacks facts of this training: %s", self.run.hidden(str(error)))

    def show(self, training: TrainingFacts) -> None:
        """Let the monitors begin."""
        self._behind, self._began = training.behind, time.time()
        self._monitors.begin(training)

    @property
    def notes(self) -> Notes:
        """What monitors keep for the next session."""
        return Notes() if self.run is None else self.run.notes

    def hidden(self, text: str) -> str:
        """Return `text` without secrets."""
        return without_secrets(text) if self.run is None else self.run.hidden(text)

    def write(self, event: Written) -> bool:
        """Write an event to the run, and pass it to the monitors if it is new; return whether it is.

        The run gets every window, also one that a resumed driver gets once more.
        """
        if isinstance(event, ServerRestored):
            self._seen.roll_back(event)
        if self.run is not None:
            self.run.write(event)
        is_new = not isinstance(event, Window) or self._seen.is_new(event)
        if is_new:
            self._monitors.write(self._without_secrets(event))
        return is_new

    def epoch(
        self, member: int, conductor: Conductor, epoch: int, logs: Logs, ended: EpochEnded | None
    ) -> None:
        """Write the record of an epoch that is closed, before workers train beyond it."""
        samples, now = 0 if ended is None else self._behind + ended.samples, time.time()
        closed = Epoch(epoch, dict(logs), samples, now - self._began, now, self._key(member))
        self._monitors.write(closed)
        if self.run is None:
            return
        state = {
            "callbacks": self._states[member].get(),
            "rate": conductor.live.rate(),
            "stop": conductor.live.model.stop_training or conductor.stop.reason in BY_ITSELF,
        }
        samples = 0 if ended is None else ended.samples
        unwritten = self._unwritten.setdefault(member, [])
        unwritten.append(partial(self.run.epoch, epoch, logs, state, samples=samples))
        with self._failures.noted(self.run, f"the record of epoch {epoch}", "record", member):
            while unwritten:
                unwritten[0](member=self._key(member))
                del unwritten[0]

    def windows(self) -> Iterator[Window]:
        """Yield the windows of the earlier sessions that count."""
        if self.run is None or not self.run.resumed:
            return
        if self.start.source == "snapshot":
            yield from self.run.windows(self._seen)
        elif self.start.source == "checkpoint":
            yield from self.run.windows(until=self.start.epochs[0])

    def records(self) -> list[EpochRecord]:
        """Return the records of the earlier sessions that count."""
        return [] if self.run is None else self.run.records(self._key(0))

    def in_result(self) -> dict[str, Any]:
        """Return what the result of the training says of the run."""
        if self.run is None:
            return {}
        checkpoints = {
            entry.epoch: self.run.address_of(entry, self._key(0))
            for entry in self.run.checkpoints(self._key(0)).entries
        }
        return {"run": self.run.address, "checkpoints": checkpoints, "failures": self._failures.all}

    def finish(self, result: TrainingResult, models: Sequence[keras.Model]) -> None:
        """Write how the training ended, and the models that it returns.

        Raises:
            OSError: the store refuses it, or has refused the last record or checkpoint.
        """
        if self.run is not None:
            self.run.finish(vars(result), models)
            self._failures.raise_last(self.run)
        self._monitors.end({**vars(result), "models": list(models)})

    def _key(self, member: int) -> int | None:
        return member if self._members > 1 else None

    def _without_secrets(self, event: Written) -> Written:
        found = {name: text for name in ("error", "reason") if (text := getattr(event, name, ""))}
        hidden = {name: self.hidden(text) for name, text in found.items()}
        return replace(event, **hidden) if hidden else event  # type: ignore[arg-type]
