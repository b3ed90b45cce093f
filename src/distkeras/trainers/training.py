"""One training of a trainer: the data, what goes around it, the job, and the models it leaves."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.cluster.arrays import Roles
from distkeras.cluster.data import Prepared, check_full
from distkeras.cluster.description import about
from distkeras.cluster.job import Job, Outcome
from distkeras.cluster.label_skew import SkewedLabelsWarning
from distkeras.cluster.placement import Placed
from distkeras.cluster.probe import check_python
from distkeras.cluster.server import launched
from distkeras.cluster.splitting import split_rows
from distkeras.cluster.tables import TrainingData, as_frame
from distkeras.cluster.user_line import levels_to_user
from distkeras.cluster.validate import check_last_batch
from distkeras.events import EpochEnded, Event, ServerRestored, Window
from distkeras.lifecycle.around import Around
from distkeras.lifecycle.conducting import Conducting
from distkeras.lifecycle.ended import ended_result
from distkeras.lifecycle.interrupt import FirstInterrupt
from distkeras.lifecycle.keeping import Keeping, Resume
from distkeras.lifecycle.live_model import LiveModel
from distkeras.lifecycle.plan import Plan, Stop
from distkeras.lifecycle.requests import Requests
from distkeras.lifecycle.result import TrainingResult
from distkeras.lifecycle.validation import SideProcess, launched_side
from distkeras.model.randomness import take_back
from distkeras.model.variables import value_of
from distkeras.monitor.progress import ProgressBar
from distkeras.monitor.progress_state import Aim
from distkeras.monitor.running import Monitors
from distkeras.runs import RunOptions
from distkeras.trainers.beginning import Beginning
from distkeras.trainers.jobs import JobPlan, WorkerRows
from distkeras.trainers.run_facts import facts_of
from distkeras.trainers.shown import shown_of
from distkeras.trainers.titles import title_of
from distkeras.trainers.unfair import Speeds, UnfairWarning
from distkeras.trainers.validating import Validating
from distkeras.worker.final_state import FinalState
from distkeras.worker.signature import model_signature

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from distkeras.cluster.watching import Watching
    from distkeras.trainers.configured import Configured
    from distkeras.wire.store import SnapshotOptions

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

    Attributes:
        models: the models that the training has left; before, those that callbacks see, if there are any.
        last: the last centers, after an error.
        is_complete: whether the models are what the training was to leave.
        stop: the reason to end, which others may set.

    Raises:
        ValueError: as `Around.for_metrics`.
    """

    def __init__(
        self,
        trainer: Configured,
        around: Around,
        shuffle: bool,
        initial: Callable[[], Vector],
        arrange: Arrange | None,
        resume: Resume,
    ) -> None:
        self._trainer = trainer
        self._speeds = Speeds(
            trainer.algorithm, trainer.quorum, trainer.elastic is not None or trainer.independent
        )
        self._around = around.for_metrics(trainer._given.metrics).for_monitors(trainer.algorithm.name)
        self._shuffle = shuffle
        self._initial = initial
        self._arrange = arrange
        self._resume = resume
        self._ended: list[EpochEnded] = []
        self._ended_before: TrainingResult | None = None
        self.models: list[keras.Model] = []
        self.last: list[Vector] = []
        self.is_complete = False
        self.stop = Stop()
        self._placed = Placed()
        title, in_fit = title_of(trainer), around.verbose == 1
        self._bar = ProgressBar(title, "auto" if in_fit else trainer.verbose, only_waits=in_fit)
        self._take_keeping(Keeping(None, False))

    def run(self, data: TrainingData) -> tuple[list[keras.Model], int]:
        """Train on `data`; return the trained model, or those of all members, and the number of updates."""
        trainer, started = self._trainer, time.monotonic()
        placement = trainer.server_placement
        shared = placement.shared_with(RunOptions.of(self._around.run), trainer.server.snapshots)
        num_partitions = trainer.num_workers if self._arrange is None else 1
        roles = Roles(trainer.features_col, trainer.label_col, trainer.sample_weight_col)
        with ExitStack() as stack:
            monitors = Monitors(self._around.monitors)
            keeping = Keeping.opened(self._around.run, self._resume, monitors)
            self._take_keeping(stack.enter_context(keeping))
            if self._has_ended():
                return self.models, 0
            stack.enter_context(self._bar)
            run = None if self._keeping.run is None else self._keeping.run.address
            title = title_of(trainer, run)
            stack.enter_context(about(title, self._bar.waits))
            server = self._keeping.server(trainer.server)
            interrupted = self._keeping.find(server)
            seed = self._keeping.seed(interrupted)
            if seed is not None and not trainer._seeded:
                trainer.seed = seed
            here = 0 if placement.where == "executors" else trainer.num_parameter_servers
            processes, aside = stack.enter_context(launched(here)), self._launched_aside(stack)
            held = None if self._around.validation is None else self._around.validation.data
            if self._around.split:
                data, held = split_rows(data, self._around.split, trainer.seed)
            frame, roles = stack.enter_context(as_frame(data, roles, num_partitions))
            # Check Python before the first job: evaluating the rows may already run Python code.
            check_python(frame.sparkSession, keras.backend.backend(), trainer.server.give_up)
            prepared = trainer._prepare(
                frame, roles, self._shuffle, num_partitions, with_content=server.resumable
            )
            if prepared.skew is not None and self._arrange is None:
                warnings.warn(prepared.skew, SkewedLabelsWarning, stacklevel=levels_to_user())
            given, validating = self._worker_rows(prepared, held, stack, aside)
            settings = trainer._settings(self._shuffle, sum(given.rows))
            settings["columns"] = given.frame.schema.simpleString()
            if prepared.content is not None:
                settings["digest of the rows"] = prepared.content
            begun = self._begun
            initial = begun.run(prepared, given.rows, settings, interrupted, self._initial, validating)
            self.models = begun.models
            facts = facts_of(trainer, begun, given, initial)
            self._keeping.begin(settings, facts, next(iter(self.models), None), begun.first)
            self._keeping.show(shown_of(trainer, self._keeping, begun, settings, facts))
            if begun.num_epoch < 1:  # A callback has moved `initial_epoch` to the end.
                outcome = Outcome(initial, 0)
            else:
                plan = JobPlan(trainer, self._around, self._keeping, begun, given)
                servers = {"options": server, "placement": placement, "shared": shared}
                job = plan.job(initial, settings, launched=processes, last=self.last, **servers)
                outcome = self._train(job)
                self._placed = outcome.placed
                if (own := outcome.final_states.get(0)) is not None:
                    take_back(own.generators, job.task.generators)
            self._end(outcome, prepared)
            self.is_complete = True
            self._keeping.finish(self.result(time.monotonic() - started), self.models)
            return self.models, outcome.num_updates

    @property
    def snapshots(self) -> SnapshotOptions | None:
        """Where the snapshots of the training are, if they are still there at its end."""
        return self._keeping.snapshots(self._trainer.server.snapshots)

    def keras_history(self) -> keras.callbacks.History:
        """Return Keras's history of the one model of the training."""
        if self._begun.conductors:
            return self._begun.conductors[0].callbacks.history
        found, own = keras.callbacks.History(), self._trainer._history
        found.set_model(self.models[0])
        found.epoch, found.history = list(own.epoch), dict(own.history)
        found.model.history = found
        return found

    def result(self, seconds: float) -> TrainingResult:
        """Return why the training ended, and its best epoch."""
        if self._ended_before is not None:
            return self._ended_before
        stops = [self.stop, *(conductor.stop for conductor in self._begun.conductors)]
        reason, detail = next(
            ((stop.reason, stop.detail) for stop in stops if stop.reason is not None),
            ("finished", "the last epoch has ended"),
        )
        history, kept, placed = self._trainer._history, self._keeping.in_result(), self._placed
        return TrainingResult.of(
            *(reason, detail, history.epoch, history.history),
            seconds=seconds,
            server_placement=placed.where,
            placement_reason=placed.reason,
            **kept,
        )

    def _take_keeping(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._begun = Beginning(self._trainer, self._around, keeping, self.stop, self._bar.epoch)

    def _has_ended(self) -> bool:
        """Take the models and the history of a run that is over; return whether it is."""
        trainer, run = self._trainer, self._keeping.run
        if run is None or not run.ended:
            return False
        seed = self._keeping.seed(None)
        if seed is not None and not trainer._seeded:
            trainer.seed = seed
        settings = trainer._settings(self._shuffle, 0)
        del settings["num_rows"]  # The data is not read.
        self._ended_before = ended_result(run, self._resume, settings)
        if self._ended_before is None:
            return False
        self._begun.take_final(run)
        self.models, self.is_complete = self._begun.models, True
        return True

    def _launched_aside(self, stack: ExitStack) -> list[SideProcess]:
        """Start the process that may validate: it imports Keras while the driver examines the data."""
        validation = self._around.validation
        if validation is None or validation.on == "workers":
            return []
        return stack.enter_context(launched_side(keras.backend.backend()))

    def _worker_rows(
        self, prepared: Prepared, held: TrainingData, stack: ExitStack, aside: list[SideProcess]
    ) -> tuple[WorkerRows, Validating | None]:
        """Return the rows of the workers, with those `held` if they validate on them, and who validates.

        Args:
            prepared: the prepared rows.
            held: the rows to validate on.
            stack: what has to stay open during the training.
            aside: a process that may validate.
        """
        trainer = self._trainer
        frame, rows = prepared.frame, prepared.rows_per_partition
        if self._arrange is not None:
            frame, rows = self._arrange(frame)
            inputs, _ = model_signature(trainer.keras_model)
            check_last_batch(inputs, trainer.batch_size, rows, trainer.feeding.drop_remainder)
        if trainer.feeding.drop_remainder:
            check_full(rows, trainer.batch_size)
        if self._around.validation is None:
            return WorkerRows(frame, rows, prepared.columns, self._shuffle), None
        members = trainer.num_workers if trainer.independent else 1
        validating = Validating(trainer, self._around.validation, held, members, stack, aside)
        validating.begin(self._begun.given.spec)
        frame, share = validating.added_to(frame)
        return WorkerRows(frame, rows, prepared.columns, self._shuffle, share), validating

    def _train(self, job: Job) -> Outcome:
        begun = self._begun
        plans = [Plan(rows, begun.num_epoch) for rows in begun.member_rows or (begun.rows,)]
        ends = tuple(plan.end_of for plan in plans)
        aim = Aim(ends, begun.num_epoch, begun.first, self._trainer.num_workers)
        self._bar.begin(aim, closes_epochs=bool(begun.conductors))
        self._bar.waits("starts the parameter server")
        requests = Requests(self._keeping.run, self.stop, self._save_asked)

        def look(watching: Watching) -> None:
            self._bar.waits("starts the workers")
            self._bar.look(watching.waiting_tasks)
            requests(watching)

        conducting = Conducting(begun.conductors, self.stop, self._take, look)
        with FirstInterrupt(self._interrupted), requests:
            return job.run(conducting)

    def _save_asked(self, watching: Watching) -> str:
        """Save the center as it is now, of each model, and return where."""
        members = len(self._begun.conductors) if self._trainer.independent else 1
        models = [self._begun.given.trained(watching.pull(member)) for member in range(members)]
        return ", ".join(self._keeping.save_asked(models))

    def _interrupted(self) -> None:
        self.stop.set("interrupt", "Ctrl-C was pressed; a second Ctrl-C cancels at once")

    def _take(self, event: Event) -> None:
        history = self._trainer._history
        is_new = self._keeping.write(event)
        self._bar(event)
        # The last commits of fragments may have no steps.
        if isinstance(event, Window) and is_new and event.steps:
            history.append(event)
            self._speeds.take(event)
        if isinstance(event, EpochEnded):
            self._ended.append(event)
            if (said := self._speeds.warning()) is not None:
                warnings.warn(said, UnfairWarning, stacklevel=levels_to_user())
        if isinstance(event, ServerRestored):
            history.roll_back(event.commits)

    def _end(self, outcome: Outcome, prepared: Prepared) -> None:
        """Complete the models, or make them, and run the callbacks that follow the last epoch."""
        trainer, states = self._trainer, outcome.final_states
        centers = np.atleast_2d(outcome.center)
        if self._begun.conductors:
            for member, (conductor, center) in enumerate(zip(self._begun.conductors, centers, strict=True)):
                conductor.end(center, states.get(member))
        elif outcome.center.ndim == 2:
            self.models = [
                trainer._given.trained(
                    center, states.get(member), prepared.columns, batch_size=trainer.batch_size
                )
                for member, center in enumerate(centers)
            ]
        else:
            own, *others = (states.get(worker, FinalState()) for worker in range(trainer.num_workers))
            model = trainer._given.trained(
                centers[0], own, prepared.columns, others, batch_size=trainer.batch_size
            )
            self.models = [model]
            self._add_epochs(model, prepared)

    def _add_epochs(self, model: keras.Model, prepared: Prepared) -> None:
        """Add the logs of the epochs to the history; the metrics of the model stay those of the last pass.

        An epoch of the center has whole windows, which may reach over the end of a worker's pass.
        """
        trainer, begun = self._trainer, self._begun
        live = LiveModel(model, begun.given.spec.layout, prepared.columns, trainer.batch_size)
        last_pass = [np.array(value_of(cell)) for cell in model.metrics_variables]
        for ended in {event.epoch: event for event in self._ended}.values():
            trainer._history.add_epoch(begun.first + ended.epoch, live.logs_of(ended.states))
        if len(last_pass) == len(model.metrics_variables):  # Not after a stop: nobody saw the last pass.
            for cell, value in zip(model.metrics_variables, last_pass, strict=True):
                cell.assign(value)
