"""What comes before the first epoch of a training: its models, their callbacks, and the first center."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from distkeras.algorithms import Vector
from distkeras.events import EpochEnded
from distkeras.lifecycle.callbacks import Callbacks
from distkeras.lifecycle.conductor import Conductor
from distkeras.lifecycle.live_model import LiveModel, Logs
from distkeras.lifecycle.plan import Plan, Stop
from distkeras.model.optimizer import set_values
from distkeras.model.variables import value_of
from distkeras.trainers.checks import at_once, warn_of_rate
from distkeras.worker.epochs import EpochPlan
from distkeras.worker.settings import rows_of_epochs

if TYPE_CHECKING:
    from distkeras.cluster.data import Prepared
    from distkeras.cluster.resume import Interrupted
    from distkeras.lifecycle.around import Around
    from distkeras.lifecycle.keeping import Keeping
    from distkeras.runs import Run
    from distkeras.trainers.configured import Configured
    from distkeras.trainers.given import GivenModel
    from distkeras.trainers.validating import Validating


class Beginning:
    """Begins one training, anew or where an earlier one was interrupted.

    Args:
        trainer: the trainer, whose history gets the earlier sessions and the epochs.
        around: what goes around the training.
        keeping: what the training keeps.
        stop: the reason to end the whole training.
        on_epoch: receives the number, the logs and the member of each epoch that is closed.

    Attributes:
        given: the model that the training begins with.
        models: the models that callbacks see; empty if there are none around the training.
        conductors: one for each of these models.
        rows: rows of the first epochs of the center, after which they begin again.
        member_rows: the same for each member of an ensemble.
        first: number of the first epoch.
        num_epoch: number of epochs that the center trains.
    """

    def __init__(
        self,
        trainer: Configured,
        around: Around,
        keeping: Keeping,
        stop: Stop,
        on_epoch: Callable[[int, Logs, int], None] = lambda epoch, logs, member: None,
    ) -> None:
        self._trainer = trainer
        self._on_epoch = on_epoch
        self._around = around
        self._keeping = keeping
        self._stop = stop
        self.given: GivenModel = trainer._given
        self.models: list[keras.Model] = []
        self.conductors: list[Conductor] = []
        self.rows: tuple[int, ...] = (1,)
        self.member_rows: tuple[tuple[int, ...], ...] = ()
        self.first = around.initial_epoch
        self.num_epoch = trainer.num_epoch - self.first

    def run(
        self,
        prepared: Prepared,
        rows: tuple[int, ...],
        settings: Mapping[str, Any],
        interrupted: Interrupted | None,
        initial: Callable[[], Vector],
        validating: Validating | None,
    ) -> Vector:
        """Run the callbacks that precede the first epoch, and return the first center, or centers.

        Args:
            prepared: the rows.
            rows: rows of each worker.
            settings: the settings that a resumed training compares.
            interrupted: the training to resume; `None` for none.
            initial: returns the first center, or centers, of a model that callbacks have not changed.
            validating: validates the models; `None` for no validation.

        Raises:
            ValueError: the settings differ from those of the training to resume in what may not change.
        """
        self._decide(rows, settings, interrupted)
        center = initial()
        if self._around.is_plain:
            return center
        self._make_models(center, prepared)
        for member, model in enumerate(self.models):
            own = rows[member : member + 1] if self._trainer.independent else rows
            self.conductors.append(self._conductor(member, model, prepared, own, validating))
        self._begin_callbacks()
        if not self._trainer.independent:
            return self.given.first_vector()
        return np.stack([conductor.live.vector() for conductor in self.conductors])

    def take_final(self, run: Run) -> None:
        """Take the models and the history of a run that has ended, in place of a training."""
        trainer, history = self._trainer, self._trainer._history
        members = range(trainer.num_workers) if trainer.independent else range(1)
        for window in run.windows():
            history.append(window)
        for record in run.records(0 if len(members) > 1 else None):
            history.add_epoch(record.epoch, record.logs)
        for member in members:
            saved = run.load_final(
                member if len(members) > 1 else None, custom_objects=trainer.custom_objects
            )
            given = self._around.in_place
            model = trainer.keras_model if given else self.given.trained(self.given.first_vector())
            _take_saved(model, saved)
            self.models.append(model)

    def _decide(
        self, rows: tuple[int, ...], settings: Mapping[str, Any], interrupted: Interrupted | None
    ) -> None:
        """Decide what the training goes on from, and put the earlier sessions of its run into the history."""
        trainer, keeping, history = self._trainer, self._keeping, self._trainer._history
        self.rows = self._rows_of(rows)
        self.member_rows = tuple(self._rows_of((own,)) for own in rows) if trainer.independent else ()
        start = keeping.decide(interrupted, settings, trainer.algorithm, self.member_rows or (self.rows,))
        self.first = self._around.initial_epoch if keeping.base is None else keeping.base
        self.num_epoch = trainer.num_epoch - self.first
        for window in keeping.windows():
            history.append(window)
        history.earlier = 0 if start.source == "snapshot" else len(history)
        for record in keeping.records():
            history.add_epoch(record.epoch, record.logs)

    def _make_models(self, center: Vector, prepared: Prepared) -> None:
        """Make the models that callbacks see."""
        if self._around.in_place:
            self.models = [self._trainer.keras_model]
        else:
            self.models = [self.given.trained(each) for each in np.atleast_2d(center)]
        if not self._trainer.independent:
            self.given = self.given.following(self.models[0])
        if self._keeping.start.source == "checkpoint":
            self._take_checkpoint(self._keeping.start.epochs[0] - 1, prepared)

    def _take_checkpoint(self, epoch: int, prepared: Prepared) -> None:
        """Give the model the weights, and the state of the optimizer, of a checkpoint of the run."""
        saved = self._keeping.checkpoint(epoch, self._trainer.custom_objects)
        model = self.models[0]
        live = self._live(model, prepared)
        rate = live.rate()
        _take_saved(model, saved)
        if self._keeping.start.changes.rates:
            live.set_rate(rate)

    def _begin_callbacks(self) -> None:
        """Run `on_train_begin`, with the state of an earlier session, and `on_epoch_begin`."""
        keeping = self._keeping
        for member, conductor in enumerate(self.conductors):
            keeping.before(member, conductor.callbacks.states())
            conductor.begin(keeping.behind(member, self.first), keeping.missed(member, self.first))
            keeping.restore(member, conductor)
            if keeping.start.source == "start":  # `BackupAndRestore` sets it.
                self.first = getattr(conductor.live.model, "_initial_epoch", None) or self.first
        self.num_epoch = self._trainer.num_epoch - self.first
        for conductor in self.conductors:
            conductor.move(self.first, self.num_epoch)
            if conductor.next_epoch < self.num_epoch:
                conductor.begin_epoch()

    def _conductor(
        self,
        member: int,
        model: keras.Model,
        prepared: Prepared,
        rows: tuple[int, ...],
        validating: Validating | None,
    ) -> Conductor:
        around, members = self._around, len(self.models)
        own = callbacks_of(around.callbacks, member, members)
        callbacks = Callbacks(
            own,
            model,
            self._trainer.num_epoch,
            self._steps(rows),
            around.verbose,
            saves=self._keeping.saves_models,
        )
        conductor = Conductor(
            self._live(model, prepared),
            callbacks,
            self._plan(member, callbacks, rows),
            # Of one model it is the same, so that a Ctrl-C in a callback counts before the next epoch begins.
            Stop() if self._trainer.independent else self._stop,
            judge=None if validating is None else validating.judge_of(model),
            stop_when=around.stop,
            on_epoch=lambda epoch, logs, ended: self._closed(member, conductor, epoch, logs, ended),
            on_rate=self._warn_of_rate,
            save=partial(self._keeping.save, member, model),
        )
        return conductor

    def _plan(self, member: int, callbacks: Callbacks, rows: tuple[int, ...]) -> Plan:
        trainer, around, members = self._trainer, self._around, len(self.models)
        alone = len(rows) == 1
        holds = (
            (alone or trainer.algorithm.synchronous)
            and not trainer.overlap
            and trainer._fragments is None
            and (callbacks.decide or around.validation is not None or around.stop is not None)
        )
        return Plan(
            rows=self._rows_of(rows),
            num_epoch=self.num_epoch,
            first=self.first,
            holds=holds,
            by_steps=holds and alone and members == 1 and callbacks.see_batches,
            worker=member if members > 1 else 0,
        )

    def _steps(self, rows: tuple[int, ...]) -> int:
        """Return the minibatches of an epoch, of all workers with these rows together."""
        each, size = self._around.steps_per_epoch, self._trainer.batch_size
        rest = 0 if self._trainer.feeding.drop_remainder else size - 1
        return sum(each or (count + rest) // size for count in rows)

    def _live(self, model: keras.Model, prepared: Prepared) -> LiveModel:
        return LiveModel(model, self.given.spec.layout, prepared.columns, self._trainer.batch_size)

    def _closed(
        self, member: int, conductor: Conductor, epoch: int, logs: Logs, ended: EpochEnded | None
    ) -> None:
        if member == 0:
            self._trainer._history.add_epoch(epoch, logs)
        self._keeping.epoch(member, conductor, epoch, logs, ended)
        self._on_epoch(epoch, logs, member)

    def _warn_of_rate(self, rate: float) -> None:
        trainer = self._trainer
        warn_of_rate(trainer.algorithm, at_once(trainer), rate, trainer.overlap)

    def _rows_of(self, rows: tuple[int, ...]) -> tuple[int, ...]:
        """Return the rows of the epochs of a center whose workers have `rows`; one if all are alike."""
        trainer, steps = self._trainer, self._around.steps_per_epoch
        epochs = 1 if steps is None else max(1, self.num_epoch)
        plan = EpochPlan(steps=steps, within_pass=len(rows) == 1)
        found = rows_of_epochs(rows, trainer.batch_size, epochs, plan, trainer.feeding.drop_remainder)
        return found[:1] if len(set(found)) == 1 else found


def _take_saved(model: keras.Model, saved: keras.Model) -> None:
    """Give `model` the weights and the state of the optimizer of `saved`, its copy in a run."""
    model.set_weights(saved.get_weights())
    if model.optimizer is None or saved.optimizer is None:
        return
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    set_values(model.optimizer, tuple(value_of(cell) for cell in saved.optimizer.variables))


def callbacks_of(given: Any, member: int, members: int) -> Any:
    """Return the callbacks of one of `members` models: a copy of those given, for an ensemble."""
    if callable(given) and not isinstance(given, keras.callbacks.Callback | keras.callbacks.CallbackList):
        return given(member)
    if members == 1:
        return given
    return copy.deepcopy(given)
