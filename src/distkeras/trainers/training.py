"""One training of a trainer: the data, what goes around it, the job, and the models it leaves."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.center import CenterConfig
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, check_full
from distkeras.cluster.job import Job, Outcome
from distkeras.cluster.probe import check_python
from distkeras.cluster.resume import Interrupted
from distkeras.cluster.server import launched
from distkeras.cluster.settings import result_limit
from distkeras.cluster.splitting import split_rows
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.validate import check_last_batch
from distkeras.events import EpochEnded, Event, ServerRestored, Window
from distkeras.lifecycle.around import Around
from distkeras.lifecycle.callbacks import Callbacks
from distkeras.lifecycle.conducting import Conducting
from distkeras.lifecycle.conductor import Conductor
from distkeras.lifecycle.interrupt import FirstInterrupt
from distkeras.lifecycle.keeping import Keeping, Resume
from distkeras.lifecycle.live_model import LiveModel, Logs
from distkeras.lifecycle.plan import Plan, Stop
from distkeras.lifecycle.result import TrainingResult
from distkeras.model.optimizer import set_values
from distkeras.model.variables import value_of
from distkeras.monitor.progress import ProgressBar
from distkeras.trainers.checks import warn_of_rate
from distkeras.trainers.validating import Validating
from distkeras.worker.epochs import EpochPlan, StateAt
from distkeras.worker.final_state import FinalState
from distkeras.worker.settings import rows_of_epochs
from distkeras.worker.signature import model_signature
from distkeras.worker.task import Task

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.cluster.process import Process
    from distkeras.trainers.configured import Configured
    from distkeras.trainers.given import GivenModel
    from distkeras.wire.store import SnapshotOptions
    from distkeras.worker.validation_share import ValidationShare

    Arrange = Callable[[DataFrame], tuple[DataFrame, tuple[int, ...]]]


class Training:
    """One call of `train`.

    Args:
        trainer: the trainer, whose history it fills.
        around: what goes around the training.
        shuffle: as in `DistributedTrainer.train`.
        initial: returns the first center, shape (size,); or one for each member, shape (members, size).
        arrange: splits the prepared rows into the workers' partitions; returns them and their row counts.
        resume: as in `DistributedTrainer.train`.
        independent: whether each worker trains a model of its own.

    Attributes:
        models: the models that callbacks see, or that the training has left; empty before there are any.
        conductors: one for each of the models that callbacks see.
        last: the last centers, after an error.
        is_complete: whether the models are what the training was to leave.
    """

    def __init__(
        self,
        trainer: Configured,
        around: Around,
        shuffle: bool,
        initial: Callable[[], Vector],
        arrange: Arrange | None,
        resume: Resume,
        *,
        independent: bool,
    ) -> None:
        self._trainer = trainer
        self._around = around.for_metrics(trainer._given.metrics)
        self._shuffle = shuffle
        self._initial = initial
        self._arrange = arrange
        self._resume = resume
        self._is_independent = independent
        self._given: GivenModel = trainer._given
        self._ended: list[EpochEnded] = []
        self.models: list[keras.Model] = []
        self.conductors: list[Conductor] = []
        self.last: list[Vector] = []
        self.is_complete = False
        self.stop = Stop()
        self._keeping = Keeping(None, False)
        self._server = trainer.server
        self._validating: Validating | None = None
        self._share: ValidationShare | None = None
        self._rows: tuple[int, ...] = (1,)
        self._member_rows: tuple[tuple[int, ...], ...] = ()

    def run(self, data: TrainingData) -> tuple[list[keras.Model], int]:
        """Train on `data`; return the trained model, or those of all members, and the number of updates."""
        trainer, started = self._trainer, time.monotonic()
        num_partitions = trainer.num_workers if self._arrange is None else 1
        roles = Roles(trainer.features_col, trainer.label_col, trainer.sample_weight_col)
        with ExitStack() as stack:
            self._keeping = stack.enter_context(Keeping.opened(self._around.run, self._resume))
            self._server = self._keeping.server(trainer.server)
            interrupted = self._keeping.find(self._server)
            seed = self._keeping.seed(interrupted)
            if seed is not None and not trainer._seeded:
                trainer.seed = seed
            processes = stack.enter_context(launched(trainer.num_parameter_servers))
            held = None if self._around.validation is None else self._around.validation.data
            if self._around.split:
                data, held = split_rows(data, self._around.split, trainer.seed)
            frame, roles = stack.enter_context(as_frame(data, roles, num_partitions))
            # Check Python before the first job: evaluating the rows may already run Python code.
            check_python(frame.sparkSession, keras.backend.backend())
            prepared = trainer._prepare(
                frame, roles, self._shuffle, num_partitions, with_content=self._server.resumable
            )
            frame, rows = self._arranged(prepared)
            if self._around.validation is not None:
                members = trainer.num_workers if self._is_independent else 1
                self._validating = Validating(trainer, self._around.validation, held, members, stack)
                self._validating.begin(self._given.spec)
                frame, self._share = self._validating.added_to(frame)
            settings = trainer._settings(self._shuffle, sum(rows)) | {"data": frame.schema.simpleString()}
            if prepared.content is not None:
                settings["digest of the rows"] = prepared.content
            initial = self._begin(prepared, rows, settings, interrupted)
            facts = {"trainer": type(trainer).__name__, "server": trainer.server}
            model = self.models[0] if self.models else None
            self._keeping.begin(settings, facts, model, self._first)
            if self._num_epoch < 1:  # A callback has moved `initial_epoch` to the end.
                outcome = Outcome(initial, 0)
            else:
                outcome = self._train(prepared, frame, rows, initial, settings, processes)
            models = self._end(outcome, prepared)
            self.is_complete = True
            self._keeping.finish(self.result(time.monotonic() - started))
            return models, outcome.num_updates

    @property
    def snapshots(self) -> SnapshotOptions | None:
        """Where the snapshots of the training are, if they are still there at its end."""
        return self._keeping.snapshots(self._trainer.server.snapshots)

    def keras_history(self) -> keras.callbacks.History:
        """Return Keras's history of the one model of the training."""
        return self.conductors[0].callbacks.history

    def result(self, seconds: float) -> TrainingResult:
        """Return why the training ended, and its best epoch."""
        stops = [self.stop, *(conductor.stop for conductor in self.conductors)]
        reason, detail = next(
            ((stop.reason, stop.detail) for stop in stops if stop.reason is not None),
            ("finished", "the last epoch has ended"),
        )
        history, kept = self._trainer._history, self._keeping.in_result()
        return TrainingResult.of(reason, detail, history.epoch, history.history, seconds=seconds, **kept)

    def _arranged(self, prepared: Prepared) -> tuple[DataFrame, tuple[int, ...]]:
        trainer = self._trainer
        frame, rows = prepared.frame, prepared.rows_per_partition
        if self._arrange is not None:
            frame, rows = self._arrange(frame)
            inputs, _ = model_signature(trainer.keras_model)
            check_last_batch(inputs, trainer.batch_size, rows, trainer.feeding.drop_remainder)
        if trainer.feeding.drop_remainder:
            check_full(rows, trainer.batch_size)
        return frame, rows

    def _begin(
        self,
        prepared: Prepared,
        rows: tuple[int, ...],
        settings: Mapping[str, Any],
        interrupted: Interrupted | None,
    ) -> Vector:
        """Run the callbacks that precede the first epoch, and return the first center, or centers."""
        trainer, around, keeping = self._trainer, self._around, self._keeping
        independent = self._is_independent
        self._num_epoch = trainer.num_epoch - around.initial_epoch
        self._rows = self._rows_of(rows)
        self._member_rows = tuple(self._rows_of((own,)) for own in rows) if independent else ()
        start = keeping.decide(interrupted, settings, trainer.algorithm, self._member_rows or (self._rows,))
        self._first = around.initial_epoch if keeping.base is None else keeping.base
        self._num_epoch = trainer.num_epoch - self._first
        self._continue_history()
        initial = self._initial()
        if around.is_plain:
            return initial
        if around.in_place:
            self.models = [trainer.keras_model]
        else:
            self.models = [self._given.trained(center) for center in np.atleast_2d(initial)]
        if not independent:
            self._given = self._given.following(self.models[0])
        if start.source == "checkpoint":
            self._take_checkpoint(start.epochs[0] - 1, prepared)
        for member, model in enumerate(self.models):
            own = rows[member : member + 1] if independent else rows
            self.conductors.append(self._conductor(member, model, prepared, own, len(self.models)))
        for member, conductor in enumerate(self.conductors):
            keeping.before(member, conductor.callbacks.states())
            conductor.begin(keeping.behind(member, self._first), keeping.missed(member, self._first))
            keeping.restore(member, conductor)
            if start.source == "start":  # `BackupAndRestore` sets it.
                self._first = getattr(conductor.live.model, "_initial_epoch", None) or self._first
        self._num_epoch = trainer.num_epoch - self._first
        for conductor in self.conductors:
            conductor.move(self._first, self._num_epoch)
            if conductor.next_epoch < self._num_epoch:
                conductor.begin_epoch()
        if not independent:
            return self._given.first_vector()
        return np.stack([conductor.live.vector() for conductor in self.conductors])

    def _conductor(
        self, member: int, model: keras.Model, prepared: Prepared, rows: tuple[int, ...], members: int
    ) -> Conductor:
        trainer, around = self._trainer, self._around
        each = self._around.steps_per_epoch
        rest = 0 if trainer.feeding.drop_remainder else trainer.batch_size - 1
        steps = sum(each or (count + rest) // trainer.batch_size for count in rows)
        callbacks = Callbacks(
            callbacks_of(around.callbacks, member, members),
            model,
            trainer.num_epoch,
            steps,
            around.verbose,
            saves=self._keeping.saves_models,
        )
        alone = len(rows) == 1
        holds = (
            (alone or trainer.algorithm.synchronous)
            and not trainer.overlap
            and trainer._fragments is None
            and (callbacks.decide or around.validation is not None or around.stop is not None)
        )
        plan = Plan(
            rows=self._rows_of(rows),
            num_epoch=self._num_epoch,
            first=self._first,
            holds=holds,
            by_steps=holds and alone and members == 1 and callbacks.see_batches,
            worker=member if members > 1 else 0,
        )
        conductor = Conductor(
            LiveModel(model, self._given.spec.layout, prepared.columns, trainer.batch_size),
            callbacks,
            plan,
            Stop(),
            judge=None if self._validating is None else self._validating.judge_of(model),
            stop_when=around.stop,
            on_epoch=lambda epoch, logs, ended: self._closed(member, conductor, epoch, logs, ended),
            on_rate=self._warn_of_rate,
            save=partial(self._keeping.save, member, model),
        )
        return conductor

    def _closed(
        self, member: int, conductor: Conductor, epoch: int, logs: Logs, ended: EpochEnded | None
    ) -> None:
        if member == 0:
            self._trainer._history.add_epoch(epoch, logs)
        self._keeping.epoch(member, conductor, epoch, logs, ended)

    def _continue_history(self) -> None:
        """Put the earlier sessions of a run that is resumed into the history."""
        history = self._trainer._history
        for window in self._keeping.windows():
            history.append(window)
        history.earlier = 0 if self._keeping.start.source == "snapshot" else len(history)
        for record in self._keeping.records():
            history.add_epoch(record.epoch, record.logs)

    def _take_checkpoint(self, epoch: int, prepared: Prepared) -> None:
        """Give the model the weights, and the state of the optimizer, of a checkpoint of the run."""
        saved = self._keeping.checkpoint(epoch, self._trainer.custom_objects)
        model, rates = self.models[0], self._keeping.start.changes.rates
        live = LiveModel(model, self._given.spec.layout, prepared.columns, self._trainer.batch_size)
        rate = live.rate()
        model.set_weights(saved.get_weights())
        if model.optimizer is not None and saved.optimizer is not None:
            set_values(model.optimizer, tuple(value_of(cell) for cell in saved.optimizer.variables))
        if rates:
            live.set_rate(rate)

    def _warn_of_rate(self, rate: float) -> None:
        warn_of_rate(self._trainer.algorithm, self._trainer.num_workers, rate)

    def _rows_of(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Return the rows of the epochs of a center whose workers have `rows`; one if all are alike."""
        trainer, steps = self._trainer, self._around.steps_per_epoch
        epochs = 1 if steps is None else max(1, self._num_epoch)
        plan = EpochPlan(steps=steps, within_pass=len(rows) == 1)
        found = rows_of_epochs(rows, trainer.batch_size, epochs, plan, trainer.feeding.drop_remainder)
        return found[:1] if len(set(found)) == 1 else found

    def _train(
        self,
        prepared: Prepared,
        frame: DataFrame,
        rows: tuple[int, ...],
        initial: Vector,
        settings: Mapping[str, Any],
        processes: list[Process],
    ) -> Outcome:
        trainer = self._trainer
        members = 1 if initial.ndim == 1 else trainer.num_workers
        task = Task(
            center=self._center(initial),
            columns=prepared.columns,
            rows=rows,
            batch_size=trainer.batch_size,
            num_epoch=self._num_epoch,
            shuffle=self._shuffle,
            seed=trainer.seed,
            schedules_follow_training=trainer.schedule_steps == "training" and members == 1,
            state_of=tuple(range(members)),
            largest_state=result_limit(frame.sparkSession) // 2 // members,
            drop_remainder=trainer.feeding.drop_remainder,
            epochs=self._epochs(),
            validation=self._share,
        )
        job = Job(
            model=self._given.spec,
            task=task,
            frame=frame,
            initial=initial,
            backend=keras.backend.backend(),
            num_servers=trainer.num_parameter_servers,
            options=self._server,
            settings=dict(settings),
            resume=self._keeping.start.next,
            launched=processes,
            compression=trainer.compression,
            story=trainer._story,
            last=self.last,
        )
        show = None if trainer.verbose == "auto" else bool(trainer.verbose)
        with ProgressBar(
            type(trainer).__name__, Plan(self._rows, self._num_epoch).end_of(self._num_epoch - 1), show=show
        ) as bar:
            conducting = Conducting(self.conductors, self.stop, lambda event: self._take(event, bar))
            with FirstInterrupt(self._interrupted):
                return job.run(conducting)

    def _interrupted(self) -> None:
        self.stop.set("interrupt", "Ctrl-C was pressed; a second one ends it at once")

    def _take(self, event: Event, bar: ProgressBar) -> None:
        history = self._trainer._history
        self._keeping.write(event)
        bar(event)
        # The last commits of fragments may have no steps.
        if isinstance(event, Window) and self._keeping.is_new(event) and event.steps:
            history.append(event)
        if isinstance(event, EpochEnded):
            self._ended.append(event)
        if isinstance(event, ServerRestored):
            history.roll_back(event.commits)

    def _epochs(self) -> EpochPlan:
        """Return what the workers have to do at the ends of epochs."""
        each = [(conductor.callbacks, conductor.plan) for conductor in self.conductors]
        by_steps = any(plan.by_steps for _, plan in each)
        state: StateAt = "epochs" if any(callbacks.see_state for callbacks, _ in each) else "never"
        return EpochPlan(
            windows_end=self._is_exact,
            steps=self._around.steps_per_epoch,
            state="commits" if by_steps or self._is_resumable_exactly else state,
            # Keras calls the methods for batches once for so many steps.
            longest_window=self._trainer.keras_model.steps_per_execution if by_steps else None,
            within_pass=self._trainer.num_workers == 1 or self._is_independent,
        )

    @property
    def _is_resumable_exactly(self) -> bool:
        """Whether another driver goes on exactly, for which the worker sends its state with every commit."""
        return self._keeping.run is not None and self._is_exact and self._trainer.num_workers == 1

    @property
    def _is_exact(self) -> bool:
        """Whether windows end with epochs: each model has one worker, and something looks at its epochs."""
        trainer = self._trainer
        alone = trainer.num_workers == 1 or len(self.conductors) > 1
        return bool(self.conductors) and alone and not trainer.overlap and trainer._fragments is None

    def _center(self, initial: Vector) -> CenterConfig:
        trainer, layout = self._trainer, self._given.spec.layout
        first = [conductor.plan for conductor in self.conductors if conductor.plan.holds]
        return CenterConfig(
            trainer.algorithm,
            trainer.num_workers,
            num_trainable=layout.num_trainable,
            quorum=trainer.quorum,
            grace=trainer.grace,
            overlap=trainer.overlap,
            bad_updates=trainer.on_bad_update,
            without_lost=trainer.on_lost_worker == "proceed",
            independent=self._is_independent,
            dtype=initial.dtype.name,
            layout=self._given.spec.fingerprint,
            tensors=layout.tensors,
            fragments=trainer._fragments,
            epoch_rows=self._rows,
            member_rows=self._member_rows,
            until=min(plan.until(0, 0) for plan in first) if first else None,
        )

    def _end(self, outcome: Outcome, prepared: Prepared) -> list[keras.Model]:
        """Complete the models, run the callbacks that follow the last epoch, and return the models."""
        trainer, states = self._trainer, outcome.final_states
        centers = np.atleast_2d(outcome.center)
        if self.conductors:
            for member, (conductor, center) in enumerate(zip(self.conductors, centers, strict=True)):
                conductor.end(center, states.get(member))
            return self.models
        if outcome.center.ndim == 2:
            self.models = [
                trainer._given.trained(
                    center, states.get(member), prepared.columns, batch_size=trainer.batch_size
                )
                for member, center in enumerate(centers)
            ]
            return self.models
        own, *others = (states.get(worker, FinalState()) for worker in range(trainer.num_workers))
        model = trainer._given.trained(
            centers[0], own, prepared.columns, others, batch_size=trainer.batch_size
        )
        self.models = [model]
        self._add_epochs(model, prepared)
        return self.models

    def _add_epochs(self, model: keras.Model, prepared: Prepared) -> None:
        """Add the logs of the epochs to the history; the metrics of the model stay those of the last pass.

        An epoch of the center has whole windows, which may reach over the end of a worker's pass.
        """
        live = LiveModel(model, self._given.spec.layout, prepared.columns, self._trainer.batch_size)
        last_pass = [np.array(value_of(cell)) for cell in model.metrics_variables]
        for ended in {event.epoch: event for event in self._ended}.values():
            self._trainer._history.add_epoch(self._first + ended.epoch, live.logs_of(ended.states))
        if len(last_pass) == len(model.metrics_variables):  # Not after a stop: nobody saw the last pass.
            for cell, value in zip(model.metrics_variables, last_pass, strict=True):
                cell.assign(value)


def callbacks_of(given: Any, member: int, members: int) -> Any:
    """Return the callbacks of one of `members` models: a copy of those given, for an ensemble."""
    if callable(given) and not isinstance(given, keras.callbacks.Callback | keras.callbacks.CallbackList):
        return given(member)
    if members == 1:
        return given
    return copy.deepcopy(given)
